"""The providers that can run jobs on this engine, and what the others need."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from labrats.model.acp_programs import install_command_of
from labrats.model.ai_model import AiModel
from labrats.model.provider_spec import ACP, AGENT_PROGRAMS, LOCAL_PROVIDERS, PROVIDER_SPECS, provider_spec
from labrats.processes import denied_program
from labrats.settings import EngineSettings

MissingPart = Literal["program", "credentials", "server"]


@dataclass(frozen=True)
class ProviderReadiness:
    """A provider, and what it needs before it can run a job.

    missing: the part that it needs; None if the provider can run. problem: a sentence about it, without a full stop.
    command: the command that helps. A word in capitals is a placeholder.
    """

    name: str
    missing: MissingPart | None = None
    problem: str | None = None
    command: str | None = None

    @property
    def advice(self) -> str | None:
        """The problem and the command that helps, in one line; None if the provider can run."""
        return f"{self.problem}: `{self.command}`" if self.problem and self.command else self.problem


def provider_readiness(
    settings: EngineSettings,
    ai_models: Sequence[AiModel],
    secret_keys: Mapping[str, Collection[str]],
    environment: Mapping[str, str],
) -> Iterator[ProviderReadiness]:
    """Yield the readiness of each provider.

    Executor images have the agent programs, so that a cluster is not searched for them.

    secret_keys: the keys in each Secret that AiModels name, by its name; existing Secrets only.
    environment: of the engine. On one machine, a model without a Secret has its credentials from there.
    """
    on_cluster = settings.backend == "kubernetes"
    for provider in PROVIDER_SPECS:
        own = [each for each in ai_models if each.spec.provider == provider]
        if provider == ACP:
            yield _of_acp(own, on_cluster=on_cluster)
        elif provider in LOCAL_PROVIDERS:
            yield _of_local_provider(provider, own)
        elif provider not in AGENT_PROGRAMS:
            yield ProviderReadiness(provider)
        elif not on_cluster and (missing := _missing_program(provider, settings.program_paths[provider])):
            yield missing
        elif _has_credentials(settings, provider, own, secret_keys, {} if on_cluster else environment):
            yield ProviderReadiness(provider)
        else:
            yield _without_credentials(provider, own, on_cluster=on_cluster)


def _of_local_provider(provider: str, own: Sequence[AiModel]) -> ProviderReadiness:
    if any(each.spec.endpoint for each in own):
        return ProviderReadiness(provider)
    url = "http://127.0.0.1:8000/v1"
    if own:
        problem = f"the AiModel {own[0].name} has no endpoint"
        command = f"labrats model set {own[0].name} --endpoint {url}"
    else:
        problem = "no AiModel names the server of its model"
        command = f"labrats connect local {url} --provider {provider}"
    return ProviderReadiness(provider, "server", problem, command)


def _of_acp(own: Sequence[AiModel], *, on_cluster: bool) -> ProviderReadiness:
    connect = "labrats connect acp opencode --endpoint URL --model MODEL"
    commands = [each.spec.command for each in own if each.spec.command and each.spec.endpoint]
    if not commands:
        return ProviderReadiness(ACP, "program", "no AiModel names a program and the server of its model", connect)
    if on_cluster or any(shutil.which(command[0]) for command in commands):
        return ProviderReadiness(ACP)
    program = commands[0][0]
    return ProviderReadiness(ACP, "program", f"{program} is not installed", install_command_of(program))


def _missing_program(provider: str, configured: str | None) -> ProviderReadiness | None:
    if shutil.which(configured or provider):
        return None
    name, package, _ = AGENT_PROGRAMS[provider]
    if denied := denied_program(configured or provider):
        return ProviderReadiness(provider, "program", f"{name} cannot be run: {denied}")
    if configured:
        problem = f"LABRATS_{provider.upper()}_PATH is {configured}, which is no program"
        return ProviderReadiness(provider, "program", problem)
    return ProviderReadiness(provider, "program", f"{name} is not installed", f"npm install -g {package}")


def _has_credentials(
    settings: EngineSettings,
    provider: str,
    own: Sequence[AiModel],
    secret_keys: Mapping[str, Collection[str]],
    environment: Mapping[str, str],
) -> bool:
    """Return whether a job of the provider may have credentials. A server of one's own may need none."""
    names = provider_spec(provider).keys
    if any(environment.get(name) for name in names) or (provider == "claude" and settings.claude_use_login):
        return True
    specs = [each.spec for each in own]
    return any(
        any(name in secret_keys.get(spec.credentials_ref, ()) for name in names)
        if spec.credentials_ref
        else spec.endpoint is not None
        for spec in specs
    )


def _without_credentials(provider: str, own: Sequence[AiModel], *, on_cluster: bool) -> ProviderReadiness:
    secret = next((each.spec.credentials_ref for each in own if each.spec.credentials_ref), None)
    problem = f"the Secret {secret} has no credentials" if secret else "no credentials are stored"
    if not on_cluster:
        return ProviderReadiness(provider, "credentials", problem, f"labrats connect {provider}")
    key, name = provider_spec(provider).keys[0], secret or provider
    command = f"kubectl create secret generic {name} --from-file={key}=FILE"
    if secret is None:
        use = f"set {own[0].name}" if own else f"create {provider} --provider {provider} --model {provider}"
        command += f" && labrats model {use} --credentials {name}"
    return ProviderReadiness(provider, "credentials", problem, command)
