"""The small resources that go with others: texts in ConfigMaps, credentials and API keys in Secrets."""

from typing import Final

from labrats.model.record import Resource

TYPE_LABEL: Final = "labrats.work/type"
"""Says what a Secret of the engine's own is."""
API_KEY_LABEL: Final = TYPE_LABEL
API_KEY_LABEL_VALUE: Final = "ai-api-key"
PROMPT_KEY: Final = "prompt"
INSTRUCTIONS_KEY: Final = "instructions"
EVENT_KEY: Final = "event"


class ConfigMap(Resource):
    """Plain text by key."""

    data: dict[str, str] = {}


class Secret(Resource):
    """Secret text by key. Its values never leave the Store but into a file that one executor reads."""

    data: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secret({self.name!r}, keys={sorted(self.data)})"
