"""Make the excerpt of GitHub's OpenAPI description that the stand-in for GitHub checks requests against.

It has the requests of the operations that the stand-in answers, from a pinned version of the package `@octokit/openapi`
(licence MIT). Run it after adding an operation: `.venv/bin/python scripts/excerpt_github_openapi.py`.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.github import server  # noqa: E402, F401  (its import fills ROUTES)
from tests.support.github.contract import EXCERPT  # noqa: E402
from tests.support.github.routing import ROUTES  # noqa: E402

PACKAGE = "@octokit/openapi@23.0.2"
DROPPED = {"description", "example", "examples", "default", "title", "externalDocs", "deprecated"}


def main() -> None:
    """Write the excerpt."""
    description = download()
    excerpt = {operation: excerpt_of(description, operation) for operation in sorted(ROUTES)}
    EXCERPT.write_text(json.dumps(excerpt, indent=1) + "\n")
    print(f"Wrote {len(excerpt)} operations to {EXCERPT.relative_to(ROOT)}.")


def download() -> Any:
    """Return the description of api.github.com."""
    with tempfile.TemporaryDirectory() as folder:
        packed = [str(ROOT / ".venv/bin/npm"), "pack", "--silent", PACKAGE]
        name = subprocess.run(packed, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
        with tarfile.open(Path(folder) / name) as package:
            content = package.extractfile("package/generated/api.github.com.json")
            assert content
            return json.load(content)


def excerpt_of(description: Any, operation: str) -> Any:
    """Return the parameters and the body of an operation, with their references resolved."""
    method, _, template = operation.partition(" ")
    documented = description["paths"][template][method.lower()]
    body = documented.get("requestBody", {})
    content = body.get("content", {}).get("application/json")
    return {
        "parameters": [slim(resolved(description, each)) for each in documented.get("parameters", [])],
        "body": slim(resolved(description, content["schema"])) if content else None,
        "needsBody": body.get("required", False),
    }


def resolved(description: Any, value: Any) -> Any:
    """Return a part of the description with its references replaced by what they name."""
    if isinstance(value, list):
        return [resolved(description, each) for each in value]
    if not isinstance(value, dict):
        return value
    if isinstance(reference := value.get("$ref"), str):
        target = description
        for key in reference.removeprefix("#/").split("/"):
            target = target[key]
        return resolved(description, target)
    return {key: resolved(description, each) for key, each in value.items()}


def slim(value: Any, *, names: bool = False) -> Any:
    """Return a schema without its texts. names: the keys are names of fields, which all stay."""
    if isinstance(value, list):
        return [slim(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: slim(each, names=key == "properties" and not names)
        for key, each in value.items()
        if names or key not in DROPPED
    }


if __name__ == "__main__":
    main()
