"""The resources that name a Secret, whose jobs would fail without it."""

from collections.abc import Iterable, Iterator

from labrats.model.agent import AiAgent
from labrats.model.ai_model import AiModel
from labrats.model.config import JobConfig, ResolvedConfig
from labrats.model.webhook_source import WebhookSource


def secrets_of_agent(agent: AiAgent) -> set[str]:
    """Return the names of the Secrets for the agent's MCP servers and environment variables, and its triggers'."""
    spec = agent.spec
    own = JobConfig(mcp_servers=spec.mcp_servers, env=spec.env)
    return _secrets_of(own, *(trigger.config for trigger in spec.event_triggers))


def users_of_secret(
    name: str, models: Iterable[AiModel], sources: Iterable[WebhookSource], agents: Iterable[AiAgent]
) -> Iterator[str]:
    """Yield the resources that name the Secret, as phrases for an error message."""
    for model in models:
        if model.spec.credentials_ref == name:
            yield f"the model {model.name}"
    for source in sources:
        spec = source.spec
        of_signature = spec.secret_ref.name if spec.secret_ref else None
        if name in {spec.credentials_ref, of_signature} | _secrets_of(spec.defaults):
            yield f"the webhook source {source.name}"
    for agent in agents:
        if name in secrets_of_agent(agent):
            yield f"the agent {agent.name}"


def _secrets_of(*configs: JobConfig) -> set[str]:
    layers = [ResolvedConfig(config=each) for each in configs]
    servers = {name for layer in layers for name in layer.mcp_credentials.values()}
    return servers | {key.secret for layer in layers for key in layer.secret_variables.values()}
