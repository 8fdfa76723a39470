"""TypeScript types can be generated from the OpenAPI document, and a strict compiler accepts them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.api.conftest import Api

FOLDER: Final = Path(__file__).parents[1] / "typescript"
PACKAGES: Final = FOLDER / "node_modules"
NODE: Final = Path(sys.executable).with_name("node")

OPTIONS: Final = (
    "--strict",
    "--noEmit",
    "--noUncheckedIndexedAccess",
    "--exactOptionalPropertyTypes",
    "--target",
    "es2022",
)


@pytest.fixture
async def document(api: Api) -> Any:
    async with api.client(None) as nobody:
        return (await nobody.get("/api/openapi.json")).json()


def run(*command: str | Path) -> str:
    done = subprocess.run([NODE, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


async def test_a_client_of_the_generated_types_compiles(document: Any, tmp_path: Path) -> None:
    if not PACKAGES.exists():
        pytest.fail("TypeScript is not installed for the tests; run `make setup`", pytrace=False)
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    shutil.copy(FOLDER / "client.ts", tmp_path)

    run(PACKAGES / "openapi-typescript" / "bin" / "cli.js", tmp_path / "openapi.json", "-o", tmp_path / "api.d.ts")
    run(PACKAGES / "typescript" / "bin" / "tsc", *OPTIONS, tmp_path / "client.ts", tmp_path / "api.d.ts")
