"""The state of the connection with GitHub, and the next step."""

from typing import Any

import pytest

from labrats.intake.github_readiness import github_readiness
from labrats.model.condition import condition_factory
from labrats.model.record import Metadata
from labrats.model.webhook_source import ACCEPTING, WebhookSource, WebhookSourceSpec, WebhookSourceStatus
from tests.fakes.clock import NOON

APP = {"github-app": ("appId", "privateKey")}


def a_source(*conditions: tuple[str, bool], **spec: Any) -> WebhookSource:
    report = condition_factory(NOON)
    shown = tuple(report(kind, holds, "Reason", f"{kind} is {holds}.") for kind, holds in conditions)
    spec = {"type": "github", "credentials_ref": "github-app"} | spec
    status = WebhookSourceStatus(conditions=shown)
    return WebhookSource(metadata=Metadata(name="github"), spec=WebhookSourceSpec(**spec), status=status)


@pytest.mark.parametrize(
    ("sources", "keys", "advice"),
    [
        ([], {}, "no repository is connected: `labrats connect github`"),
        ([], APP, "the GitHub App has no repository yet: `labrats connect github`"),
        ([a_source(enabled=False)], APP, "the GitHub App has no repository yet: `labrats connect github`"),
        ([a_source(type="generic")], {}, "no repository is connected: `labrats connect github`"),
        (
            [a_source()],
            {"github-app": ("appId",)},
            "the Secret github-app of the source github has neither an App nor a token: `labrats connect github`",
        ),
        ([a_source(("Polling", False))], APP, "source github: Polling is False"),
        ([a_source(("Polling", True), (ACCEPTING, False))], APP, None),
        ([a_source(credentials_ref="own")], {"own": ("token",)}, None),
        ([a_source(credentials_ref=None)], {}, None),
    ],
)
def test_advice_names_the_first_problem(
    sources: list[WebhookSource], keys: dict[str, tuple[str, ...]], advice: str | None
) -> None:
    assert github_readiness(sources, keys).advice == advice


def test_summary_names_what_is_read() -> None:
    polled = a_source(mode="poll", repositories=("octo/demo", "octo/other"))
    summary = "the source github reads octo/demo, octo/other; the source github receives events by a webhook"
    assert github_readiness([polled, a_source()], APP).summary == summary
