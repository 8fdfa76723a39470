"""The program `labrats` with shorter waits, for tests of what happens after a wait that no setting shortens.

LocalEngine runs it instead of `labrats` if its environment has `constants(...)`.
"""

import json
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Final

from labrats.main import main

VARIABLE: Final = "TEST_CONSTANTS"


def constants(values: Mapping[str, float | str]) -> dict[str, str]:
    """Return the environment of an engine in which constants have other values. values: by module and name."""
    return {VARIABLE: json.dumps(values)}


def replace_constants(values: Mapping[str, float | str]) -> None:
    for name, value in values.items():
        module, _, constant = name.rpartition(".")
        found = import_module(module)
        if not hasattr(found, constant):
            raise SystemExit(f"there is no constant {name} to replace")
        setattr(found, constant, value)


if __name__ == "__main__":
    replace_constants(json.loads(os.environ.pop(VARIABLE)))
    main()
