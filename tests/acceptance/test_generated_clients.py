"""Clients that common generators make of the OpenAPI document work with the engine, without options of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.acceptance.engine import Engine, User

TYPESCRIPT: Final = Path(__file__).parents[1] / "typescript"
BIN: Final = Path(sys.executable).parent

PYTHON_CLIENT: Final = """
import sys, time
from client import AuthenticatedClient
from client.api.agents import create_agent
from client.api.jobs import get_job, list_jobs, submit
from client.models import AgentBody, ConfigBody, JobDetail, Submission

url, key, admin_key, name = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key)
submitted = submit.sync(
    client=client, body=Submission(source="manual", type_=name, prompt="Hello", config=ConfigBody(provider="mock"))
)
while (job := get_job.sync(submitted.job_id, client=client)).status not in ("completed", "failed"):
    time.sleep(0.1)
assert isinstance(job, JobDetail)
page = list_jobs.sync(client=client, type_=name)
assert [each.id for each in page.jobs] == [submitted.job_id]
refused = submit.sync(client=client, body=Submission(source="manual", type_=name))
assert refused.details[0].field == "prompt"
admin = AuthenticatedClient(base_url=url, token=admin_key)
servers = {"wiki": {"url": "https://wiki.example.com/mcp"}}
agent = create_agent.sync(client=admin, body=AgentBody.from_dict({"name": name, "mcpServers": servers}))
assert agent.mcp_servers["wiki"].url == servers["wiki"]["url"]
print(job.status)
"""


def run(*command: str | Path, **environment: str) -> str:
    settings = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | environment
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=settings
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


async def document_in(folder: Path, user: User) -> Path:
    path = folder / "openapi.json"
    path.write_text(json.dumps((await user.get("/api/openapi.json")).json()))
    return path


async def test_generated_python_client_submits_reads_and_lists_jobs(
    engine: Engine, user: User, admin: User, name: str, tmp_path: Path
) -> None:
    document = await document_in(tmp_path, user)
    run(
        BIN / "openapi-python-client", "generate", "--path", document, "--meta", "none", "--output-path",
        tmp_path / "client",
    )  # fmt: skip

    done = run(sys.executable, "-c", PYTHON_CLIENT, engine.url, user.key, admin.key, name, PYTHONPATH=str(tmp_path))

    assert done == "completed\n"


async def test_generated_typescript_types_describe_the_requests_and_answers_of_a_job(
    engine: Engine, user: User, tmp_path: Path
) -> None:
    packages = TYPESCRIPT / "node_modules"
    document = await document_in(tmp_path, user)
    run(BIN / "node", packages / "openapi-typescript/bin/cli.js", document, "-o", tmp_path / "api.d.ts")
    program = tmp_path / "run-job.mts"
    program.write_text((TYPESCRIPT / "run-job.mts").read_text())
    run(
        BIN / "node", packages / "typescript/bin/tsc", "--strict", "--noEmit", "--target", "es2022",
        "--module", "nodenext", program,
    )  # fmt: skip

    assert run(BIN / "node", program, URL=engine.url, KEY=user.key) == "completed\n"
