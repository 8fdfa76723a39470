"""The settings of the whole engine that users may change at runtime."""

from typing import Final

from labrats.model.record import Record, Resource

AI_CONFIG_NAME: Final = "default"
"""The name of the only AiConfig."""


class ModelFile(Record):
    """A file that may be downloaded for a local model."""

    filename: str
    url: str
    sha256: str | None = None


class ProviderConfig(Record):
    """Defaults for the jobs of one provider. files: local providers only."""

    model: str | None = None
    effort: str | None = None
    files: tuple[ModelFile, ...] = ()


class AiConfigSpec(Record):
    """Defaults for all jobs. executor_resources: as in a pod's container."""

    model: str | None = None
    effort: str | None = None
    executor_image: str | None = None
    executor_resources: dict[str, dict[str, str]] = {}
    providers: dict[str, ProviderConfig] = {}


class AiConfig(Resource):
    """The settings of the engine that users may change at runtime."""

    spec: AiConfigSpec
