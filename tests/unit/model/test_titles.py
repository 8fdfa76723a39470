"""The title of a job."""

from labrats.model.job import TITLE_LENGTH, title_of


def test_title_that_is_cut_ends_with_an_ellipsis() -> None:
    whole, long = "x" * TITLE_LENGTH, f"{'x' * (TITLE_LENGTH - 2)} and more"

    assert title_of(f"\n  {whole}\nnext line") == whole
    assert title_of(long) == f"{'x' * (TITLE_LENGTH - 2)}…"
    assert title_of(" \n") is None
