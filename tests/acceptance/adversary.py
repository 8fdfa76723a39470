"""A malicious agent program. It is started in place of Claude Code, and the prompt names the function to run.

The engine runs this file as a program, so it cannot import anything of the tests.
"""

import base64
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any

MEGABYTE = 1_000_000
ATTEMPT = pathlib.Path(os.environ["HOME"]).parent
"""The engine's folder of this attempt, which a process of the same user can reach without a sandbox."""


def emit(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def say(*texts: str, **usage: int) -> None:
    emit(type="assistant", message={"id": os.urandom(4).hex(), "usage": usage or None,
                                    "content": [{"type": "text", "text": text} for text in texts]})  # fmt: skip


def finish(text: str = "done", **fields: Any) -> None:
    emit(type="result", subtype="success", result=text, **fields)


def key() -> str:
    """Read the token that stands for the model's key, which the agent gets by a pipe, or the shared login."""
    for name in ("CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR", "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR"):
        if name in os.environ:
            with open(int(os.environ[name])) as pipe:
                return pipe.read()
    login = pathlib.Path.home() / ".claude" / ".credentials.json"
    return str(json.loads(login.read_text())["claudeAiOauth"]["accessToken"])


def hang_forever() -> None:
    while True:
        time.sleep(3600)


def ignore_signals() -> None:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


def ancestors() -> list[int]:
    """Return the ids of this process's ancestors, its parent first."""
    found, pid = [], os.getpid()
    while pid > 1:
        pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


# Output


def print_a_line_of_100_megabytes() -> None:
    for _ in range(100):
        os.write(1, b"x" * MEGABYTE)
    os.write(1, b"\n")
    finish()


def print_an_endless_line() -> None:
    while True:
        os.write(1, b"x" * MEGABYTE)


def print_endless_empty_lines() -> None:
    while True:
        os.write(1, b"\n" * MEGABYTE)


def print_endless_text() -> None:
    while True:
        say(*["word " * 200] * 100)


def return_a_result_of_60_megabytes() -> None:
    finish("x" * 60 * MEGABYTE)


def report_absurd_usage() -> None:
    say("counting", input_tokens=-(10**6), output_tokens=-5)
    say("counting", input_tokens=2**63 - 1, output_tokens=2**63 - 1)
    say("counting", input_tokens=10**30)
    finish(total_cost_usd=-1e300, num_turns=-3, modelUsage={"m": {"inputTokens": -7, "costUSD": -1e300}})


def print_deeply_nested_events() -> None:
    os.write(1, b'{"type":"assistant","message":' + b"[" * MEGABYTE + b"\n")
    say("\ud800 \x00 \x1b]0;title\x07 \u202e")
    emit(type="assistant", message={"content": [{"type": "tool_use", "id": "1", "name": "x", "input": nested(900)}]})
    finish()


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    return value


def print_the_key_in_every_form() -> None:
    secret = key()
    half = len(secret) // 2
    line = json.dumps({"type": "assistant", "message": {"content": [{"type": "text", "text": secret}]}})
    for character in line + "\n":  # one write each
        os.write(1, character.encode())
    for form in (
        secret, secret.encode().hex(), secret.encode().hex().upper(), json.dumps(secret), repr(secret),
        *(base64.b64encode(b"x" * n + secret.encode()).decode() for n in range(3)),
        base64.urlsafe_b64encode(secret.encode()).decode(),
        "".join(f"%{byte:02x}" for byte in secret.encode()), "".join(f"\\u{ord(c):04x}" for c in secret),
    ):  # fmt: skip
        say(f"it is {form}!", form)
    say("x" * (16 * 1024 - half) + secret)  # across the boundary of two events
    say(secret[:half], secret[half:])
    emit(type="system", subtype="init", model=secret, claude_code_version=secret)
    call = {"type": "tool_use", "id": secret, "name": secret, "input": {secret: [secret, {"deep": secret}]}}
    emit(type="assistant", message={"content": [call]})
    answer = {"type": "tool_result", "tool_use_id": secret, "content": [{"type": "text", "text": secret}]}
    emit(type="user", message={"content": [answer]})
    sys.stderr.write(f"{secret}\n")
    pathlib.Path("made.txt").write_text(f"{secret}\n")
    finish(f"the key is {secret}", is_error=True, errors=[secret])


# Processes


def leave_detached_processes() -> None:
    for n in range(200):
        if os.fork() == 0:
            if n % 2:
                os.setsid()
                if os.fork():
                    os._exit(0)
            if n % 3 == 0:
                ignore_signals()
            if n % 10 == 0:  # without the environment variable that marks processes of the attempt
                os.execve(sys.executable, [sys.executable, __file__, "stay"], {})
            hang_forever()
    finish()


def leave_a_process_that_keeps_forking() -> None:
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork():
                os._exit(0)
    finish()


def ignore_signals_and_hang() -> None:
    ignore_signals()
    say("try me")
    hang_forever()


def leave_a_child_that_holds_the_output() -> None:
    finish()
    if os.fork() == 0:
        ignore_signals()
        os.setsid()
        hang_forever()


def start_a_process_with_a_huge_environment() -> None:
    environment = {f"V{n}": "x" * 100_000 for n in range(15)}
    subprocess.Popen([sys.executable, __file__, "stay"], env=environment)
    finish()


# Attacks on executor and launcher


def kill_the_executor() -> None:
    os.kill(ancestors()[0], signal.SIGKILL)
    hang_forever()


def suspend_the_executor() -> None:
    os.kill(ancestors()[0], signal.SIGSTOP)
    hang_forever()


def kill_the_launcher() -> None:
    os.kill(ancestors()[1], signal.SIGKILL)
    finish()


def suspend_the_launcher() -> None:
    os.kill(ancestors()[1], signal.SIGSTOP)
    finish()


# Files


def replace_files_by_pipes() -> None:
    for name in ("output.jsonl", "claim", "exit", "result.json", "changes.patch", "stderr.log"):
        with contextlib.suppress(OSError):  # in the sandbox, the claim is mounted and cannot be changed
            (ATTEMPT / name).unlink(missing_ok=True)
            os.mkfifo(ATTEMPT / name)
    finish()


def replace_files_by_folders() -> None:
    for name in ("output.jsonl", "claim", "exit", "result.json", "changes.patch"):
        (ATTEMPT / name).unlink(missing_ok=True)
        (ATTEMPT / name).mkdir()
    finish()


def replace_files_by_links() -> None:
    secret = next(ATTEMPT.parent.parent.parent.glob("admin.key"))
    for name in ("output.jsonl", "result.json", "changes.patch"):
        (ATTEMPT / name).unlink(missing_ok=True)
        (ATTEMPT / name).symlink_to(secret)
    finish("x" * 100_000)


def inflate_files() -> None:
    finish("x" * 100_000)
    for name in ("output.jsonl", "claim", "exit", "result.json", "changes.patch"):
        with contextlib.suppress(OSError), open(ATTEMPT / name, "ab") as file:
            file.truncate(2**40)


def forge_a_claim_by_the_engine() -> None:
    engine = ancestors()[2]
    start = pathlib.Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[19]
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (ATTEMPT / "claim").write_text(f"{engine} {start} {boot}")
    os.kill(ancestors()[0], signal.SIGKILL)


def delete_the_attempt_folder() -> None:
    subprocess.run(["rm", "-rf", str(ATTEMPT)], check=False)
    finish()


def forge_an_outcome() -> None:
    """Append a result whose numbers no counter accepts, which the executor would not let through."""
    usage = {"input_tokens": -(10**9), "output_tokens": 10**25, "cost_usd": -1e308}
    event = {"seq": 2**62, "at": "2030-01-01T00:00:00Z", "kind": "result", "result": "forged", "usage": usage}
    with open(ATTEMPT / "output.jsonl", "ab") as output:
        output.write(json.dumps(event).encode() + b"\n")
    os.kill(ancestors()[0], signal.SIGKILL)


def leave_special_files() -> None:
    os.mkfifo("pipe")
    socket.socket(socket.AF_UNIX).bind("socket")
    pathlib.Path("loop").symlink_to("loop")
    pathlib.Path("out").symlink_to("/")
    pathlib.Path(b"\xff\n\x1b[2J".decode(errors="surrogateescape")).write_text("odd name")
    finish()


def leave_folders_beyond_the_path_limit() -> None:
    for _ in range(5000):
        os.mkdir("d")
        os.chdir("d")
    finish()


def stay() -> None:
    ignore_signals()
    hang_forever()


if __name__ == "__main__":
    function = sys.argv[1] if sys.argv[1] == "stay" else sys.stdin.read().strip()
    globals()[function]()
