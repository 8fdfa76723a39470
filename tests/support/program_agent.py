"""An agent program in place of Claude Code that executes its prompt, a Python program, and returns its `result`.

It is started as a program, in pods, too, so it cannot import anything of the tests.
"""

import json
import os
import sys
import traceback
from typing import Any


def emit(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main() -> None:
    token = ""
    if descriptor := os.environ.get("CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR"):
        with open(int(descriptor)) as pipe:
            token = pipe.read()
    emit(type="system", subtype="init", session_id="obedient-1", model="stand-in", claude_code_version="0")
    scope: dict[str, Any] = {"json": json, "os": os, "sys": sys, "token": token, "result": ""}
    try:
        exec(compile(sys.stdin.read(), "prompt", "exec"), scope)
    except Exception:  # noqa: BLE001, reported as the result
        scope["result"] = traceback.format_exc()
    emit(type="result", subtype="success", result=scope["result"])


if __name__ == "__main__":
    main()
