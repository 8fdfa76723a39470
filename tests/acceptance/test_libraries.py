"""The libraries that an engine loads."""

import re

from tests.acceptance.conftest import EngineFactory


def test_engine_without_a_terminal_loads_no_library_that_formats_for_one(start_engine: EngineFactory) -> None:
    engine = start_engine(PYTHONPROFILEIMPORTTIME="1")
    imported = re.findall(r"^import time:.*\|\s+([\w.]+)$", engine.log, re.MULTILINE)
    assert "structlog.tracebacks" in imported
    assert not [name for name in imported if name.startswith(("rich.", "pygments"))]
