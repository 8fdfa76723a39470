"""The selection of an attempt, and the sampling of its AiModel."""

import pytest
from msgspec.structs import replace

from labrats.model.ai_model import alias_of, most_similar
from labrats.model.config import Sampling
from labrats.model.protocol import Selection
from labrats.ports import SUGGESTIONS, Attempt
from tests.support.builders import a_job, a_spec, an_ai_model

OPUS = an_ai_model("opus", provider="claude", model="opus")
SONNET = an_ai_model("sonnet", provider="claude", model="sonnet-4")
LOCAL = an_ai_model("local", provider="qwen", model="sonnet")


def test_models_of_the_same_provider_are_most_similar_then_those_with_similar_names() -> None:
    assert most_similar([LOCAL, OPUS, SONNET], "claude", "sonnet") == [SONNET, OPUS, LOCAL]
    assert most_similar([LOCAL, OPUS, SONNET], "qwen", "opus")[0] == LOCAL


@pytest.mark.parametrize(
    ("model", "alias"),
    [
        ("claude-opus-4-8", "opus"),
        ("opus", None),
        ("claude-sonnet-4-20250514", None),
        ("sonnet-4-20250514", "sonnet-4"),
        ("claude-haiku-4-5", None),
        ("claude-fable-5", None),
        (None, None),
    ],
)
def test_alias_of_a_model_is_that_of_the_only_ai_model_that_stands_for_it(model: str | None, alias: str | None) -> None:
    known = [
        OPUS,
        SONNET,
        LOCAL,
        *(an_ai_model(name, provider="claude", model=name) for name in ("fable", "fable[1m]")),
    ]
    assert alias_of("claude", model, known) == alias
    assert alias_of("codex", model, known) is None


def test_exact_ai_model_wins_over_an_alias() -> None:
    assert (
        alias_of("claude", "claude-opus-4-8", [OPUS, an_ai_model("o", provider="claude", model="claude-opus-4-8")])
        is None
    )


def test_an_attempt_without_an_ai_model_suggests_a_few_similar_ones() -> None:
    crowd = [an_ai_model(f"m{number}", provider="codex") for number in range(SUGGESTIONS)]
    attempt = Attempt(a_job(spec=a_spec(config={"provider": "claude", "model": "sonnet"})), None, [*crowd, OPUS])

    selection = attempt.selection

    assert selection.others[0] == "opus (claude/opus)"
    assert len(selection.others) == SUGGESTIONS
    assert selection.origins["provider"] == "request"


def test_a_job_overrides_single_fields_of_its_models_sampling() -> None:
    ai_model = replace(LOCAL, spec=replace(LOCAL.spec, sampling=Sampling(temperature=0.2, seed=1)))
    job = a_job(spec=a_spec(config={"provider": "qwen", "model": "sonnet", "sampling": Sampling(seed=2)}))

    assert Attempt(job, ai_model).config.sampling == Sampling(temperature=0.2, seed=2)
    assert Attempt(job, LOCAL).config == job.resolved.config
    assert Attempt(job).config == job.resolved.config
    assert Attempt(a_job(), ai_model).config.sampling == Sampling(temperature=0.2, seed=1)


def test_an_attempt_on_an_ai_model_names_it_and_its_secret() -> None:
    ai_model = replace(OPUS, spec=replace(OPUS.spec, credentials_ref="keys"))
    job = a_job()

    selection = Attempt(job, ai_model, [OPUS, LOCAL]).selection

    assert selection == Selection(origins=job.resolved.origins, ai_model="opus", credentials_ref="keys")
