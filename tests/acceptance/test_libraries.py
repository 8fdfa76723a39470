"""The libraries that an engine loads."""

import re

from tests.acceptance.conftest import EngineFactory


def test_engine_loads_no_library_that_it_does_not_use(start_program: EngineFactory) -> None:
    engine = start_program(PYTHONPROFILEIMPORTTIME="1")
    imported = re.findall(r"^import time:.*\|\s+([\w.]+)$", engine.log, re.MULTILINE)
    assert {"structlog.tracebacks", "fastapi.routing"} <= set(imported)
    unused = ("rich.", "pygments", "pydantic.v1.")  # of a terminal, and of models as they were before pydantic 2
    assert not [name for name in imported if name.startswith(unused)]
