"""Tests of the advice in failure messages."""

from pathlib import Path
from typing import Any

import pytest

from labrats.executor.failure_advice import add_advice, missing_credentials_message, missing_server_message
from labrats.model.config import JobConfig, wire_name
from labrats.model.job import FailedCode
from labrats.model.protocol import Selection, Task
from labrats.model.provider_spec import LIMITED_SETTINGS, PROVIDERS, supporting
from tests.unit.executor.attempts import a_task, an_attempt


def a_task_of(tmp_path: Path, provider: str = "claude", model: str = "sonnet", **fields: Any) -> Task:
    return a_task(tmp_path, config=JobConfig(provider=provider, model=model), **fields)


def test_message_about_missing_credentials_names_model_layers_and_commands(tmp_path: Path) -> None:
    origins = {"provider": "request", "model": "agent"}
    others = ("sonnet-4 (claude/sonnet-4)", "local (vllm/qwen3-8b)")
    sentence = missing_credentials_message(
        "Claude Code", a_task_of(tmp_path, selection=Selection(origins=origins, others=others))
    )

    assert sentence == (
        "Claude Code has no credentials for the provider 'claude' (from request) with the model 'sonnet' (from agent): "
        "no AiModel has this provider and model; existing AiModels: sonnet-4 (claude/sonnet-4), local (vllm/qwen3-8b); "
        "run `labrats connect claude --model sonnet`"
    )


def test_message_says_when_there_are_no_ai_models(tmp_path: Path) -> None:
    assert "there are no AiModels" in missing_credentials_message("Claude Code", a_task_of(tmp_path))


def test_advice_changes_the_ai_model_that_has_no_credentials(tmp_path: Path) -> None:
    sentence = missing_credentials_message(
        "Codex", a_task_of(tmp_path, "codex", "o3", selection=Selection(ai_model="mine"))
    )

    assert "the AiModel 'mine' has no credentials" in sentence
    assert sentence.endswith("run `labrats connect codex --model o3`")


def test_message_names_a_secret_without_a_usable_key(tmp_path: Path) -> None:
    selection = Selection(ai_model="mine", credentials_ref="keys")
    sentence = missing_credentials_message("Codex", a_task_of(tmp_path, "codex", "o3", selection=selection))

    assert "the Secret 'keys' of the AiModel 'mine' has none of OPENAI_API_KEY, CODEX_API_KEY, auth.json" in sentence
    assert sentence.endswith("run `labrats connect codex --model o3`")


def test_advice_on_a_cluster_uses_kubectl_instead_of_labrats_secret(tmp_path: Path) -> None:
    sentence = missing_credentials_message("Codex", a_task_of(tmp_path, "codex", "o3", on_cluster=True))

    assert "kubectl create secret generic codex --from-file=OPENAI_API_KEY=FILE" in sentence
    assert "labrats model create o3 --provider codex --model o3 --credentials codex" in sentence
    assert "labrats secret" not in sentence
    assert "labrats connect" not in sentence


def test_advice_explains_a_model_that_comes_from_the_global_setting(tmp_path: Path) -> None:
    selection = Selection(origins={"provider": "request", "model": "ai-config"})
    task = a_task_of(tmp_path, "qwen", selection=selection)

    for sentence in (missing_server_message(task), add_advice(FailedCode.MODEL_NOT_FOUND, "no such model", task)):
        assert "the model 'sonnet' is AiConfig's global `model`" in sentence
        assert "`providers.qwen.model`" in sentence


def test_message_about_a_missing_server_contains_the_command_that_sets_it(tmp_path: Path) -> None:
    task = a_task_of(tmp_path, "qwen", "Qwen/Qwen3-8B")

    assert (
        "`labrats model create qwen-qwen3-8b --provider qwen --model Qwen/Qwen3-8B --endpoint http"
        in missing_server_message(task)
    )
    named = a_task_of(tmp_path, "qwen", selection=Selection(ai_model="mine"))
    assert "`labrats model set mine --endpoint http" in missing_server_message(named)


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "mock"])
def test_advice_names_no_setting_that_the_provider_ignores(tmp_path: Path, provider: str) -> None:
    ignored = [f"config.{wire_name(field)}" for field in LIMITED_SETTINGS if provider not in supporting(field)]
    for code in FailedCode:
        sentence = add_advice(code, "It failed.", a_task_of(tmp_path, provider))
        assert not [name for name in ignored if name in sentence], sentence


def test_advice_on_a_rate_limit_names_the_ai_model(tmp_path: Path) -> None:
    named = add_advice(FailedCode.RATE_LIMITED, "slow", a_task_of(tmp_path, selection=Selection(ai_model="mine")))
    implicit = add_advice(FailedCode.RATE_LIMITED, "slow", a_task_of(tmp_path))

    assert named == "slow (try later, or lower the slots of the AiModel 'mine')"
    assert implicit == "slow (try later, or create an AiModel with fewer slots for this model)"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"fast": True}, "[config.fast is ignored: only the provider claude accepts it]"),
        ({"fallback_model": "x"}, "[config.fallbackModel is ignored: only the provider claude accepts it]"),
        ({"effort": "high"}, "[config.effort is ignored: only the providers claude, codex accept it]"),
        (
            {"react_enabled": True},
            "[config.reactEnabled is ignored: only the providers openai, vllm, gemma, qwen accept it]",
        ),
    ],
)
def test_log_names_a_setting_that_the_provider_ignores(tmp_path: Path, settings: dict[str, Any], line: str) -> None:
    attempt = an_attempt(tmp_path, [{"log": "hello"}], config=JobConfig(provider="mock", **settings))

    assert attempt.run() == 0

    assert attempt.logs == [line, "hello"]


@pytest.mark.parametrize("layer", ["ai-config", "built-in"])
def test_setting_for_all_providers_is_ignored_without_a_log_line(tmp_path: Path, layer: str) -> None:
    config = JobConfig(provider="mock", effort="high", fast=False, react_enabled=False)
    selection = Selection(origins={"effort": layer})
    attempt = an_attempt(tmp_path, [{"log": "hello"}], config=config, selection=selection)
    attempt.run()

    assert attempt.logs == ["hello"]
