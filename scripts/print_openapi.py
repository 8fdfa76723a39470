"""Print the OpenAPI document of the engine as JSON, without starting one."""

import json
from types import SimpleNamespace
from typing import Any, cast

from labrats.api.app import create_api
from labrats.settings import EngineSettings


def document() -> dict[str, Any]:
    """Return the document of an engine with default settings."""
    return create_api(cast(Any, SimpleNamespace(settings=EngineSettings()))).openapi()


if __name__ == "__main__":
    print(json.dumps(document(), indent=1))
