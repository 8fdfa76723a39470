"""The demonstration of `labrats serve --demo`: a first job, its live log, its outcome, and what to try next."""

import shlex
import shutil
import sys
import threading
from typing import Any, Final

from labrats.cli.credentials import default_data_dir
from labrats.cli.durations import describe_span
from labrats.cli.exits import CommandError
from labrats.cli.follow import follow_log
from labrats.cli.options import ApiOptions
from labrats.cli.output import paint, print_text, remark

JOB: Final[dict[str, Any]] = {
    "source": "demo",
    "type": "hello",
    "prompt": "Say hello to whoever just started the engine.",
    "config": {"provider": "mock"},
    "metadata": {
        "mock": {
            "steps": [
                {"log": "reading the maze"},
                {"log": "turn {n}: sniffing for cheese", "times": 5, "everyMs": 300},
                {"write": {"path": "cheese.txt", "text": "found behind the third door\n"}},
                {"log": "found it; wrote cheese.txt into the workspace"},
                {"usage": {"inputTokens": 120, "outputTokens": 48, "costUsd": 0.0021, "turns": 5}},
                {"result": "The cheese was behind the third door."},
            ]
        }
    },
}
"""The mock provider plays a script instead of asking a model, so this works without any account."""


def start_demo(options: ApiOptions) -> None:
    """Begin the show beside the engine that `options` lead to, and return at once. It ends with the process."""
    threading.Thread(target=_show, args=(options,), name="demo", daemon=True).start()


def _show(options: ApiOptions) -> None:
    try:
        show(options)
    except CommandError as stop:
        remark(f"labrats: the demonstration ended early: {stop}")


def show(options: ApiOptions) -> None:
    """Submit the first job, print its log as it comes and how it ended, then say what to try next."""
    with options.connect() as client:
        print(f"The engine runs at {options.base_url}")
        if (known := client.get("/api/jobs", {"limit": 1}).json()["total"]) > 0:
            print(f"Its data folder already holds jobs: {known}")
        job_id = client.post("/api/jobs/submit", JOB).json()["jobId"]
        print(f"Job {paint(job_id, 'bold')} shows what a run looks like; the mock provider plays it:\n")
        for line in follow_log(client, job_id):
            if not line.get("done"):
                print_text(f"  {line['log']}")
        ended = client.get(f"/api/jobs/{job_id}").json()
    ran = describe_span(ended["processedAt"], ended["finishedAt"])
    print_text(f"\n{ended['status']} after {ran}: {ended['returnvalue']}")
    print(_next_steps(options, job_id), flush=True)


def _next_steps(options: ApiOptions, job_id: str) -> str:
    """Commands to paste into another terminal; the first lets the others find this engine and its admin key."""
    labrats = "labrats" if shutil.which("labrats") else shlex.quote(sys.argv[0])  # run from an environment off PATH
    data_dir = (options.data_dir or default_data_dir()).absolute()
    return f"""
Next, in another terminal:
  export LABRATS_URL={options.base_url} LABRATS_DATA_DIR={shlex.quote(str(data_dir))}
  {labrats} job {job_id}
  {labrats} submit -p "Say hello" --provider mock --follow
The whole API: {options.base_url}/api/docs
Ctrl-C here stops the engine; jobs that run go on, and its data stays for the next time."""
