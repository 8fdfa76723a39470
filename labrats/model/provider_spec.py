"""The providers: one record each, with all that the engine knows about them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

_VERSION: Final = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}")
_HTTPS: Final = 443

ACP: Final = "acp"
"""The provider of all programs that speak the Agent Client Protocol. Each of its AiModels names the command."""


class AgentProgram(NamedTuple):
    """A program. name: for people. package: on npm. minimum: the oldest version that the tests run."""

    name: str
    package: str
    minimum: str

    @property
    def install_command(self) -> str:
        return f"npm install -g {self.package}@latest"

    def problem_of(self, version: str) -> str | None:
        """Return what is wrong with the version that the program reports; None if it is unknown or new enough."""
        found = _VERSION.search(version)
        if not found or _numbers(found[0]) >= _numbers(self.minimum):
            return None
        return (
            f"{self.name} {found[0]} is older than {self.minimum}, with which Labrats is tested, "
            f"and can lose sessions or usage: `{self.install_command}`"
        )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


@dataclass(frozen=True, kw_only=True)
class ProviderSpec:
    """A provider. Its code is in `labrats/executor/providers`.

    program:           its program; None if the executor does the work.
    keys:              the keys that it reads from the Secret of an AiModel's `credentialsRef`, the usual one first.
    proxied_keys:      those that a key proxy can keep from the agent, by precedence.
    subscription_keys: those of a subscription, which has no price per token. The program gets the proxy's token under
                       the same name.
    login_key:         a login, which takes precedence over the others. It cannot be proxied: the program uses it in
                       its own way.
    api:               the API of its model's server.
    endpoint:          the base URL of that server if an AiModel names none.
    endpoint_variable: the environment variable with that URL, used if no AiModel sets one.
    login_servers:     hosts and ports of its own models and logins, which the program reaches itself unless the job
                       names a server.
    model:             the model of jobs that name none; None for the program's own choice.
    background_models: models that the program uses on its own, for titles, summaries and searches.
    session_folder:    the folder in the home in which the program stores its sessions.
    settings:          the settings that it supports, of those that some providers do not.
    reports_cost:      whether the program reports the cost, at least when it ends.
    has_list_prices:   whether the engine knows list prices of its models.
    is_local:          whether the executor itself works with a model behind an OpenAI-compatible server of one's own.
    is_self_hosted:    whether its models are behind such a server, which each AiModel names.
    """

    name: str
    program: AgentProgram | None = None
    keys: tuple[str, ...] = ()
    proxied_keys: tuple[str, ...] = ()
    subscription_keys: frozenset[str] = frozenset()
    login_key: str | None = None
    api: Literal["anthropic", "openai"] = "openai"
    endpoint: str | None = None
    endpoint_variable: str | None = None
    login_servers: tuple[tuple[str, int], ...] = ()
    model: str | None = None
    background_models: tuple[str, ...] = ()
    session_folder: str | None = None
    settings: frozenset[str] = frozenset()
    reports_cost: bool = False
    has_list_prices: bool = False
    is_local: bool = False
    is_self_hosted: bool = False

    def key_to_proxy(self, endpoint: str | None, names: Collection[str]) -> str | None:
        """Return the name of the credential that the key proxy uses. None if there is none, or no server to use it for.

        endpoint: of the model's server, if the job has one. names: the credentials that the model has.
        """
        has_no_server = self.is_self_hosted and not endpoint
        if has_no_server or self.login_key in names:
            return None
        return next((name for name in self.proxied_keys if name in names), None)

    def token_key(self, proxied_key: str | None) -> str:
        """Return the name under which the program gets the proxy's token, which takes the place of `proxied_key`."""
        return proxied_key if proxied_key in self.subscription_keys else self.keys[0]


def _local(name: str) -> ProviderSpec:
    return ProviderSpec(
        name=name,
        keys=("OPENAI_API_KEY",),
        proxied_keys=("OPENAI_API_KEY",),
        settings=frozenset({"react_enabled", "sampling"}),
        is_local=True,
        is_self_hosted=True,
    )


_SPECS: Final = (
    ProviderSpec(
        name="claude",
        program=AgentProgram("Claude Code", "@anthropic-ai/claude-code", "2.1.331"),
        keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
        proxied_keys=("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"),
        subscription_keys=frozenset({"CLAUDE_CODE_OAUTH_TOKEN"}),
        api="anthropic",
        endpoint="https://api.anthropic.com",
        endpoint_variable="ANTHROPIC_BASE_URL",
        login_servers=(
            ("api.anthropic.com", _HTTPS),
            ("platform.claude.com", _HTTPS),
            ("console.anthropic.com", _HTTPS),
        ),
        model="sonnet",
        background_models=("haiku",),
        session_folder=".claude/projects",
        settings=frozenset({"effort", "fallback_model", "fast", "mcp_servers"}),
        reports_cost=True,
    ),
    ProviderSpec(
        name="codex",
        program=AgentProgram("Codex", "@openai/codex", "0.169.0"),
        keys=("OPENAI_API_KEY", "CODEX_API_KEY", "auth.json"),
        proxied_keys=("CODEX_API_KEY", "OPENAI_API_KEY"),
        subscription_keys=frozenset({"auth.json"}),
        login_key="auth.json",
        endpoint="https://api.openai.com/v1",
        endpoint_variable="OPENAI_BASE_URL",
        login_servers=(("api.openai.com", _HTTPS), ("auth.openai.com", _HTTPS), ("chatgpt.com", _HTTPS)),
        session_folder=".codex/sessions",
        settings=frozenset({"effort", "mcp_servers"}),
        has_list_prices=True,
    ),
    ProviderSpec(
        name=ACP,
        keys=("OPENAI_API_KEY",),
        proxied_keys=("OPENAI_API_KEY",),
        settings=frozenset({"mcp_servers"}),
        is_self_hosted=True,
    ),
    _local("openai"),
    _local("vllm"),
    _local("gemma"),
    _local("qwen"),
    ProviderSpec(name="mock", session_folder=".mock-sessions", reports_cost=True),
)

PROVIDER_SPECS: Final[Mapping[str, ProviderSpec]] = {spec.name: spec for spec in _SPECS}
"""By name."""

PROVIDERS: Final = tuple(PROVIDER_SPECS)
LOCAL_PROVIDERS: Final = tuple(spec.name for spec in _SPECS if spec.is_local)
AGENT_PROGRAMS: Final[Mapping[str, AgentProgram]] = {spec.name: spec.program for spec in _SPECS if spec.program}


def provider_spec(name: str | None) -> ProviderSpec:
    """Return the provider with this name, or one without features if there is none."""
    return PROVIDER_SPECS.get(name or "") or ProviderSpec(name=name or "")


def supporting(setting: str) -> tuple[str, ...]:
    """Return the names of the providers that support a setting. The others ignore it and log that."""
    return tuple(spec.name for spec in _SPECS if setting in spec.settings)


LIMITED_SETTINGS: Final = tuple(sorted({setting for spec in _SPECS for setting in spec.settings}))
"""The settings that some providers do not support."""


def host_and_port(endpoint: str | None) -> tuple[str, int] | None:
    """Return the host of the model's server, if the job's model names one."""
    if not endpoint:
        return None
    url = urlsplit(endpoint)
    return (url.hostname or "").lower(), url.port or (_HTTPS if url.scheme == "https" else 80)
