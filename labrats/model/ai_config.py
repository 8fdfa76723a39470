"""The settings of the whole engine that users may change at runtime."""

from datetime import datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from labrats.model.record import Record, Resource, encode

AI_CONFIG_NAME: Final = "default"
"""The name of the only AiConfig."""

PAUSE_ANNOTATION: Final = "labrats.work/pause"
"""The annotation of the AiConfig that has the pause of the engine, as JSON."""


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


class EnginePause(Record):
    """A pause of the whole engine, in which no attempt starts. by: the caller who began it."""

    by: str
    since: datetime | None
    reason: str = ""


class AiConfig(Resource):
    """The settings of the engine that users may change at runtime.

    The pause is an annotation, so that applying a manifest of the settings does not end it.
    """

    spec: AiConfigSpec

    @property
    def pause(self) -> EnginePause | None:
        """The pause of the engine; None without one. An annotation that cannot be read pauses the engine, too."""
        if (stored := self.metadata.annotations.get(PAUSE_ANNOTATION)) is None:
            return None
        try:
            return msgspec.json.decode(stored, type=EnginePause)
        except msgspec.DecodeError:
            return EnginePause(
                by="kubectl", since=self.metadata.created_at, reason=f"the annotation {PAUSE_ANNOTATION}"
            )

    def with_pause(self, pause: EnginePause | None) -> "AiConfig":
        """Return the settings with this pause, or without one."""
        others = {name: text for name, text in self.metadata.annotations.items() if name != PAUSE_ANNOTATION}
        added = {PAUSE_ANNOTATION: encode(pause).decode()} if pause else {}
        return replace(self, metadata=replace(self.metadata, annotations=others | added))
