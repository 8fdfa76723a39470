"""The demo of `labrats serve --demo`: a first job, its live log, its outcome, and commands to try next."""

import shlex
import shutil
import sys
import threading
from typing import Any, Final

from labrats.cli.credentials import default_data_dir
from labrats.cli.durations import describe_span
from labrats.cli.errors import CommandError
from labrats.cli.follow import follow_log
from labrats.cli.options import ApiOptions
from labrats.cli.output import paint, print_stderr, print_text

JOB: Final[dict[str, Any]] = {
    "source": "demo",
    "type": "hello",
    "prompt": "Say hello to the person who started the engine.",
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
"""The demo's job. The mock provider plays its script instead of calling a model, so it needs no account."""


def start_demo(options: ApiOptions) -> None:
    """Start the demo in a daemon thread and return at once. `options` lead to the engine."""
    threading.Thread(target=_run_and_report, args=(options,), name="demo", daemon=True).start()


def _run_and_report(options: ApiOptions) -> None:
    try:
        run_demo(options)
    except CommandError as stop:
        print_stderr(f"labrats: the demo failed: {stop}")


def run_demo(options: ApiOptions) -> None:
    """Submit the demo job, print its log and outcome live, then print commands to try next."""
    with options.connect() as client:
        if (known := client.get("/api/jobs", {"limit": 1}).json()["total"]) > 0:
            print(f"Its data folder already contains jobs: {known}")
        job_id = client.post("/api/jobs/submit", JOB).json()["jobId"]
        print(f"Job {paint(job_id, 'bold')} is a demo that the mock provider plays. Its log:\n")
        for line in follow_log(client, job_id):
            if not line.get("done"):
                print_text(f"  {line['log']}")
        ended = client.get(f"/api/jobs/{job_id}").json()
    ran = describe_span(ended["processedAt"], ended["finishedAt"])
    print_text(f"\n{ended['status']} after {ran}: {ended['returnvalue']}")
    print(_next_steps(options, job_id), flush=True)


def _next_steps(options: ApiOptions, job_id: str) -> str:
    """Return commands to paste into another terminal. The first sets the engine's address and data folder."""
    labrats = "labrats" if shutil.which("labrats") else shlex.quote(sys.argv[0])  # the environment may not be on PATH
    data_dir = (options.data_dir or default_data_dir()).absolute()
    return f"""
Next, in another terminal:
  export LABRATS_URL={options.base_url} LABRATS_DATA_DIR={shlex.quote(str(data_dir))}
  {labrats} job {job_id}
  {labrats} submit -p "Say hello" --provider mock --follow
API reference: {options.base_url}/api/docs
Ctrl-C here stops the engine. Running jobs continue, and the data stays for the next start."""
