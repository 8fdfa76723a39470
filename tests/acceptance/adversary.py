"""An agent program that means harm. It is started as Claude Code is, and its prompt names what it is to do.

It stands alone: the engine runs it, so nothing of the tests can be imported.
"""

import base64
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
"""The engine's folder of this attempt: being the same user, a plain process finds it."""


def tell(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def say(*texts: str, **usage: int) -> None:
    tell(type="assistant", message={"id": os.urandom(4).hex(), "usage": usage or None,
                                    "content": [{"type": "text", "text": text} for text in texts]})  # fmt: skip


def finish(text: str = "done", **fields: Any) -> None:
    tell(type="result", subtype="success", result=text, **fields)


def key() -> str:
    """The model's key, which it is lent."""
    with open(int(os.environ["CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR"])) as pipe:
        return pipe.read()


def wait_for_the_end() -> None:
    while True:
        time.sleep(3600)


def ignore_signals() -> None:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


def ancestors() -> list[int]:
    """Of this process, the nearest first."""
    found, pid = [], os.getpid()
    while pid > 1:
        pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


# What it says


def a_line_of_100_megabytes() -> None:
    for _ in range(100):
        os.write(1, b"x" * MEGABYTE)
    os.write(1, b"\n")
    finish()


def a_line_that_never_ends() -> None:
    while True:
        os.write(1, b"x" * MEGABYTE)


def empty_lines_for_ever() -> None:
    while True:
        os.write(1, b"\n" * MEGABYTE)


def words_for_ever() -> None:
    while True:
        say(*["word " * 200] * 100)


def one_word_of_60_megabytes() -> None:
    finish("x" * 60 * MEGABYTE)


def absurd_numbers() -> None:
    say("counting", input_tokens=-(10**6), output_tokens=-5)
    say("counting", input_tokens=2**63 - 1, output_tokens=2**63 - 1)
    say("counting", input_tokens=10**30)
    finish(total_cost_usd=-1e300, num_turns=-3, modelUsage={"m": {"inputTokens": -7, "costUSD": -1e300}})


def deeply_nested_events() -> None:
    os.write(1, b'{"type":"assistant","message":' + b"[" * MEGABYTE + b"\n")
    say("\ud800 \x00 \x1b]0;title\x07 \u202e")
    tell(type="assistant", message={"content": [{"type": "tool_use", "id": "1", "name": "x", "input": nested(900)}]})
    finish()


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    return value


def the_secret_in_every_way() -> None:
    secret = key()
    half = len(secret) // 2
    line = json.dumps({"type": "assistant", "message": {"content": [{"type": "text", "text": secret}]}})
    for character in line + "\n":  # a write for each
        os.write(1, character.encode())
    for form in (
        secret, secret.encode().hex(), secret.encode().hex().upper(), json.dumps(secret), repr(secret),
        *(base64.b64encode(b"x" * n + secret.encode()).decode() for n in range(3)),
        base64.urlsafe_b64encode(secret.encode()).decode(),
        "".join(f"%{byte:02x}" for byte in secret.encode()), "".join(f"\\u{ord(c):04x}" for c in secret),
    ):  # fmt: skip
        say(f"it is {form}!", form)
    say("x" * (16 * 1024 - half) + secret)  # over the border of two events
    say(secret[:half], secret[half:])
    tell(type="system", subtype="init", model=secret, claude_code_version=secret)
    call = {"type": "tool_use", "id": secret, "name": secret, "input": {secret: [secret, {"deep": secret}]}}
    tell(type="assistant", message={"content": [call]})
    answer = {"type": "tool_result", "tool_use_id": secret, "content": [{"type": "text", "text": secret}]}
    tell(type="user", message={"content": [answer]})
    sys.stderr.write(f"{secret}\n")
    pathlib.Path("made.txt").write_text(f"{secret}\n")
    finish(f"the key is {secret}", is_error=True, errors=[secret])


# What it starts


def processes_that_fork_away() -> None:
    for n in range(200):
        if os.fork() == 0:
            if n % 2:
                os.setsid()
                if os.fork():
                    os._exit(0)
            if n % 3 == 0:
                ignore_signals()
            if n % 10 == 0:  # without the mark by which the engine knows its own
                os.execve(sys.executable, [sys.executable, __file__, "stay"], {})
            wait_for_the_end()
    finish()


def a_process_that_is_always_another() -> None:
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork():
                os._exit(0)
    finish()


def nothing_but_signals_ignored() -> None:
    ignore_signals()
    say("try me")
    wait_for_the_end()


def a_child_that_holds_the_output() -> None:
    finish()
    if os.fork() == 0:
        ignore_signals()
        os.setsid()
        wait_for_the_end()


def an_environment_of_megabytes() -> None:
    environment = {f"V{n}": "x" * 100_000 for n in range(15)}
    subprocess.Popen([sys.executable, __file__, "stay"], env=environment)
    finish()


# Whom it attacks


def its_executor_killed() -> None:
    os.kill(ancestors()[0], signal.SIGKILL)
    wait_for_the_end()


def its_executor_stopped() -> None:
    os.kill(ancestors()[0], signal.SIGSTOP)
    wait_for_the_end()


def its_launcher_killed() -> None:
    os.kill(ancestors()[1], signal.SIGKILL)
    finish()


def its_launcher_stopped() -> None:
    os.kill(ancestors()[1], signal.SIGSTOP)
    finish()


# What it leaves


def pipes_in_place_of_its_files() -> None:
    for name in ("output.jsonl", "claim", "exit", "result.json", "changes.patch", "stderr.log"):
        (ATTEMPT / name).unlink(missing_ok=True)
        os.mkfifo(ATTEMPT / name)
    finish()


def folders_in_place_of_its_files() -> None:
    for name in ("output.jsonl", "claim", "exit", "result.json", "changes.patch"):
        (ATTEMPT / name).unlink(missing_ok=True)
        (ATTEMPT / name).mkdir()
    finish()


def links_in_place_of_its_files() -> None:
    secret = next(ATTEMPT.parent.parent.parent.glob("admin.key"))
    for name in ("output.jsonl", "result.json", "changes.patch"):
        (ATTEMPT / name).unlink(missing_ok=True)
        (ATTEMPT / name).symlink_to(secret)
    finish("x" * 100_000)


def endless_files() -> None:
    finish("x" * 100_000)
    for name in ("output.jsonl", "claim", "exit", "result.json", "changes.patch"):
        with open(ATTEMPT / name, "ab") as file:
            file.truncate(2**40)


def a_claim_in_the_name_of_the_engine() -> None:
    engine = ancestors()[2]
    start = pathlib.Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[19]
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (ATTEMPT / "claim").write_text(f"{engine} {start} {boot}")
    os.kill(ancestors()[0], signal.SIGKILL)


def no_folder_at_all() -> None:
    subprocess.run(["rm", "-rf", str(ATTEMPT)], check=False)
    finish()


def a_forged_outcome() -> None:
    """Beyond what it could say anyway: numbers that no counter takes."""
    usage = {"input_tokens": -(10**9), "output_tokens": 10**25, "cost_usd": -1e308}
    event = {"seq": 2**62, "at": "2030-01-01T00:00:00Z", "kind": "result", "result": "forged", "usage": usage}
    with open(ATTEMPT / "output.jsonl", "ab") as output:
        output.write(json.dumps(event).encode() + b"\n")
    os.kill(ancestors()[0], signal.SIGKILL)


def things_that_are_no_files() -> None:
    os.mkfifo("pipe")
    socket.socket(socket.AF_UNIX).bind("socket")
    pathlib.Path("loop").symlink_to("loop")
    pathlib.Path("out").symlink_to("/")
    pathlib.Path(b"\xff\n\x1b[2J".decode(errors="surrogateescape")).write_text("odd name")
    finish()


def folders_deeper_than_any_path() -> None:
    for _ in range(5000):
        os.mkdir("d")
        os.chdir("d")
    finish()


def stay() -> None:
    ignore_signals()
    wait_for_the_end()


if __name__ == "__main__":
    asked = sys.argv[1] if sys.argv[1] == "stay" else sys.stdin.read().strip()
    globals()[asked]()
