"""Programs of the provider `acp` whose command and environment are known."""

import json
from collections.abc import Mapping
from typing import Final, NamedTuple


class AcpProgram(NamedTuple):
    """A program. name: for people. install_command: how to install it. command, environment: see AiModelSpec."""

    name: str
    install_command: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


_OPENCODE_CONFIG: Final = {
    "provider": {
        "labrats": {
            "npm": "@ai-sdk/openai-compatible",  # part of the program
            "options": {"baseURL": "{url}", "apiKey": "{token}"},
            "models": {"{model}": {}},
        }
    },
    "model": "labrats/{model}",
    "small_model": "labrats/{model}",  # for titles; by default it looks for another model
    "permission": "allow",
}

ACP_PROGRAMS: Final[Mapping[str, AcpProgram]] = {
    "opencode": AcpProgram(
        name="OpenCode",
        install_command="npm install -g opencode-ai",
        command=("opencode", "acp"),
        environment={
            "OPENCODE_CONFIG_CONTENT": json.dumps(_OPENCODE_CONFIG, separators=(",", ":")),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_PROJECT_CONFIG": "1",  # a repository's settings could choose another model's server
        },
    ),
    "qwen-code": AcpProgram(
        name="Qwen Code",
        install_command="npm install -g @qwen-code/qwen-code",
        command=("qwen", "--acp", "--auth-type", "openai", "--approval-mode", "yolo"),
        environment={
            "OPENAI_BASE_URL": "{url}",
            "OPENAI_API_KEY": "{token}",
            "OPENAI_MODEL": "{model}",
            "QWEN_DISABLE_AUTO_TITLE": "1",
            "QWEN_USAGE_STATISTICS_ENABLED": "false",
        },
    ),
    "goose": AcpProgram(
        name="Goose",
        install_command="curl -fsSL https://github.com/block/goose/releases/download/stable/download_cli.sh | bash",
        command=("goose", "acp"),
        environment={
            "GOOSE_PROVIDER": "openai",
            "GOOSE_MODEL": "{model}",
            "GOOSE_MODE": "auto",
            "OPENAI_HOST": "{url}",
            "OPENAI_BASE_PATH": "chat/completions",
            "OPENAI_API_KEY": "{token}",
            "GOOSE_DISABLE_KEYRING": "1",
        },
    ),
}
"""By the name of the preset."""


def install_command_of(program: str) -> str | None:
    """Return how to install a program that a preset runs; None for another one."""
    return next((each.install_command for each in ACP_PROGRAMS.values() if each.command[0] == program), None)


def expanded(environment: Mapping[str, str], *, url: str, token: str, model: str) -> dict[str, str]:
    """Return the environment of a program with the values of its placeholders."""
    values = {"{url}": url, "{token}": token, "{model}": model}
    return {name: _replaced(text, values) for name, text in environment.items()}


def _replaced(text: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
