"""An agent program in place of Claude Code that executes `agent.py` of its checkout, and returns its `result`.

It is started as a program, in pods, too, so it cannot import anything of the tests.
"""

import json
import os
import subprocess
import sys
import traceback
from typing import Any


def emit(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def write(path: str, text: str) -> None:
    """Write a file of the checkout."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def commit(message: str, **files: str) -> None:
    """Commit files, by their names with `__` for a dot."""
    for name, text in files.items():
        write(name.replace("__", "."), text)
    identity = ["-c", "user.name=Agent", "-c", "user.email=agent@example.com"]
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--message", message], check=True)


def publish(**publication: Any) -> None:
    """Write `publish.json`."""
    write(".labrats/publish.json", json.dumps(publication))


def main() -> None:
    prompt = sys.stdin.read()
    emit(type="system", subtype="init", session_id="repository-1", model="stand-in", claude_code_version="0")
    helpers = {"write": write, "commit": commit, "publish": publish}
    scope: dict[str, Any] = {"prompt": prompt, "result": "Done.", "os": os, **helpers}
    try:
        with open("agent.py") as program:
            exec(compile(program.read(), "agent.py", "exec"), scope)
    except Exception:  # noqa: BLE001, reported as the result
        scope["result"] = traceback.format_exc()
    emit(type="result", subtype="success", result=scope["result"])


if __name__ == "__main__":
    main()
