"""An agent program in place of Claude Code that looks everywhere for the key of its model, and asks for other models.

It is started as a program, in pods, too, so it cannot import anything of the tests. Its result is what it has found.
"""

import json
import os
import pathlib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

KEY = b"sk-test-of-the-mode" + b"l-0123456789"  # not in one piece, since this file is searched as well
MOST_BYTES = 4 * 2**20


def ask(token: str, model: str) -> int:
    """Send a request to the model's server. Return the status of the answer."""
    body = json.dumps({"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}).encode()
    headers = {"X-Api-Key": token, "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code


def places() -> Iterator[pathlib.Path]:
    """Yield every file that may have the key."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        yield from (process / name for name in ("environ", "cmdline"))
    for root in ("/attempt", "/tmp", "/run", "/var", "/etc", "/home", os.environ["HOME"], os.getcwd()):
        for folder, _, names in os.walk(root):
            yield from (pathlib.Path(folder, name) for name in names)


def has_key(path: pathlib.Path) -> bool:
    try:
        if not (path.is_file() and os.access(path, os.R_OK)):
            return False
        with path.open("rb") as file:
            return KEY in file.read(MOST_BYTES)
    except OSError:
        return False


def memory_with_key() -> Iterator[str]:
    """Yield the processes whose memory can be read and has the key, except this one."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) == os.getpid():
                continue
            maps = (process / "maps").read_text().splitlines()
            with (process / "mem").open("rb") as memory:
                for line in maps:
                    start, end = (int(each, 16) for each in line.split()[0].split("-"))
                    if "rw" in line.split()[1] and end - start < 2**26:
                        memory.seek(start)
                        if KEY in memory.read(end - start):
                            yield f"the memory of process {process.name}"
        except (OSError, ValueError):
            continue


def emit(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main() -> None:
    with open(int(os.environ["CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR"])) as pipe:
        token = pipe.read()
    emit(type="system", subtype="init", session_id="seeker-1", model="stand-in", claude_code_version="0")
    found = [name for name, value in os.environ.items() if KEY.decode() in value]
    found += [str(path) for path in places() if has_key(path)]
    found += memory_with_key()
    statuses = {model: ask(token, model) for model in ("claude-sonnet-5-5", "claude-opus-5-5")}
    statuses["wrong token"] = ask("wrong", "claude-sonnet-5-5")
    answer = json.dumps({"found": found, "statuses": statuses, "token is the key": token.encode() == KEY})
    emit(type="result", subtype="success", result=answer)


if __name__ == "__main__":
    main()
