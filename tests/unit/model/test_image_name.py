"""Names of container images."""

import pytest

from labrats.model.image_name import problem_of_image


@pytest.mark.parametrize(
    "name",
    [
        "executor",
        "executor:2",
        "library/executor",
        "localhost:5000/a/b_c/d-e.f:v1.2_x",
        "registry.example.com/team/executor@sha256:" + "0a" * 32,
        "[::1]:5000/executor:1@sha256:" + "0a" * 32,
    ],
)
def test_names_that_a_registry_allows_are_valid(name: str) -> None:
    assert problem_of_image(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NO IMAGE",
        "Executor",
        "a//b",
        "/a",
        "a/",
        "a:",
        "a:-1",
        "a@sha256:00",
        "https://a/b",
        "a b",
        "a\n",
        "a..b",
        "-a",
    ],
)
def test_names_that_no_registry_allows_are_invalid(name: str) -> None:
    problem = problem_of_image(name)

    assert problem is not None
    assert "such as registry.example.com/team/executor:1.2" in problem


def test_only_listed_images_are_allowed_if_there_is_a_list() -> None:
    assert problem_of_image("one:1", ["one:1", "two:1"]) is None
    assert problem_of_image("one", ["one:1", "two:1"]) == (
        "must be one of the images that this engine allows: one:1, two:1"
    )
