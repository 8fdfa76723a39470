"""A failure comes with advice for the person who reads it."""

from pathlib import Path
from typing import Any

import pytest

from labrats.executor.failure_advice import add_advice, missing_credentials_message, missing_server_message
from labrats.model.config import PROVIDERS, TAKEN_BY, JobConfig, wire_name
from labrats.model.job import FailedCode
from labrats.model.protocol import Selection, Task
from tests.unit.executor.attempts import a_task, an_attempt


def a_task_of(tmp_path: Path, provider: str = "claude", model: str = "sonnet", **fields: Any) -> Task:
    return a_task(tmp_path, config=JobConfig(provider=provider, model=model), **fields)


def test_missing_credentials_name_the_choice_its_layers_and_the_commands_that_help(tmp_path: Path) -> None:
    origins = {"provider": "request", "model": "agent"}
    others = ("sonnet-4 (claude/sonnet-4)", "local (vllm/qwen3-8b)")
    sentence = missing_credentials_message(
        "Claude Code", a_task_of(tmp_path, selection=Selection(origins=origins, others=others))
    )

    assert sentence == (
        "Claude Code has no credentials for the provider 'claude' (from request) with the model 'sonnet' (from agent): "
        "no AiModel has this provider and model, there are sonnet-4 (claude/sonnet-4), local (vllm/qwen3-8b); run "
        "`labrats secret set claude ANTHROPIC_API_KEY`, then `labrats model create sonnet --provider claude --model "
        "sonnet --credentials claude`"
    )


def test_without_any_ai_model_that_is_said(tmp_path: Path) -> None:
    assert "there is none at all" in missing_credentials_message("Claude Code", a_task_of(tmp_path))


def test_an_ai_model_without_credentials_is_the_one_to_change(tmp_path: Path) -> None:
    sentence = missing_credentials_message(
        "Codex", a_task_of(tmp_path, "codex", "o3", selection=Selection(ai_model="mine"))
    )

    assert "the AiModel 'mine' names no credentials" in sentence
    assert sentence.endswith(
        "`labrats secret set codex OPENAI_API_KEY`, then `labrats model set mine --credentials codex`"
    )


def test_a_secret_without_a_key_of_use_is_named(tmp_path: Path) -> None:
    selection = Selection(ai_model="mine", credentials_ref="keys")
    sentence = missing_credentials_message("Codex", a_task_of(tmp_path, "codex", "o3", selection=selection))

    assert "the Secret 'keys' of the AiModel 'mine' has none of OPENAI_API_KEY, CODEX_API_KEY, auth.json" in sentence
    assert "`labrats secret set keys OPENAI_API_KEY`" in sentence


def test_on_a_cluster_the_advice_names_no_command_that_works_on_a_data_folder(tmp_path: Path) -> None:
    sentence = missing_credentials_message("Codex", a_task_of(tmp_path, "codex", "o3", on_cluster=True))

    assert "kubectl create secret generic codex --from-file=OPENAI_API_KEY=FILE" in sentence
    assert "labrats secret" not in sentence


def test_a_global_model_that_reached_another_provider_is_said_to_come_from_there(tmp_path: Path) -> None:
    selection = Selection(origins={"provider": "request", "model": "ai-config"})
    task = a_task_of(tmp_path, "qwen", selection=selection)

    for sentence in (missing_server_message(task), add_advice(FailedCode.MODEL_NOT_FOUND, "no such model", task)):
        assert "the model 'sonnet' is AiConfig's global `model`" in sentence
        assert "`providers.qwen.model`" in sentence


def test_a_missing_server_says_how_to_name_one(tmp_path: Path) -> None:
    task = a_task_of(tmp_path, "qwen", "Qwen/Qwen3-8B")

    assert (
        "`labrats model create qwen-qwen3-8b --provider qwen --model Qwen/Qwen3-8B --endpoint http"
        in missing_server_message(task)
    )
    named = a_task_of(tmp_path, "qwen", selection=Selection(ai_model="mine"))
    assert "`labrats model set mine --endpoint http" in missing_server_message(named)


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "mock"])
def test_advice_names_no_setting_that_the_provider_ignores(tmp_path: Path, provider: str) -> None:
    ignored = [f"config.{wire_name(field)}" for field, takers in TAKEN_BY.items() if provider not in takers]
    for code in FailedCode:
        sentence = add_advice(code, "It failed.", a_task_of(tmp_path, provider))
        assert not [name for name in ignored if name in sentence], sentence


def test_advice_about_slots_names_the_ai_model_that_has_them(tmp_path: Path) -> None:
    named = add_advice(FailedCode.RATE_LIMITED, "slow", a_task_of(tmp_path, selection=Selection(ai_model="mine")))
    implicit = add_advice(FailedCode.RATE_LIMITED, "slow", a_task_of(tmp_path))

    assert named == "slow (try later, or lower the slots of the AiModel 'mine')"
    assert implicit == "slow (try later, or give the model an AiModel with fewer slots)"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"fast": True}, "[config.fast is left out: only the provider claude takes it]"),
        ({"fallback_model": "x"}, "[config.fallbackModel is left out: only the provider claude takes it]"),
        ({"effort": "high"}, "[config.effort is left out: only the providers claude and codex take it]"),
        (
            {"react_enabled": True},
            "[config.reactEnabled is left out: only the providers vllm and gemma and qwen take it]",
        ),
    ],
)
def test_a_setting_that_the_provider_does_not_take_is_said_to_be_left_out(
    tmp_path: Path, settings: dict[str, Any], line: str
) -> None:
    attempt = an_attempt(tmp_path, [{"log": "hello"}], config=JobConfig(provider="mock", **settings))

    assert attempt.run() == 0

    assert attempt.logs == [line, "hello"]


@pytest.mark.parametrize("layer", ["ai-config", "built-in"])
def test_a_setting_for_all_providers_needs_no_warning(tmp_path: Path, layer: str) -> None:
    config = JobConfig(provider="mock", effort="high", fast=False, react_enabled=False)
    selection = Selection(origins={"effort": layer})
    attempt = an_attempt(tmp_path, [{"log": "hello"}], config=config, selection=selection)
    attempt.run()

    assert attempt.logs == ["hello"]
