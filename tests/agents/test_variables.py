"""Tests of the job's own environment variables with the real agent programs."""

from labrats.model.job import FailedCode
from labrats.model.variables import SecretKey, variable_file
from tests.agents.agent_cli import AgentCli, words
from tests.agents.conftest import Prepare
from tests.support.scripted_model import Says

TOKEN = "test-npm-token-0123456789"


def test_tools_get_the_variables_and_output_hides_the_secret(cli: AgentCli, attempt_on: Prepare) -> None:
    env = {"CI": "1", "NPM_TOKEN": SecretKey(secret="npm", key="token")}
    secrets = cli.secrets | {variable_file("NPM_TOKEN", "token"): TOKEN}
    with cli.serve(cli.shell("echo $CI $NPM_TOKEN"), Says("done")) as server:
        attempt = attempt_on(server, config={"env": env}, secrets=secrets)
        attempt.run()

    assert f"1 {TOKEN}" in words(server.requests[1][cli.conversation])
    assert (attempt.tool_events[-1].output or "").rstrip().endswith("1 [redacted]")
    assert attempt.result == "done"
    assert TOKEN not in attempt.output.read_text()


def test_attempt_fails_if_the_secret_lacks_the_value(cli: AgentCli, attempt_on: Prepare) -> None:
    env = {"NPM_TOKEN": SecretKey(secret="npm", key="token")}
    with cli.serve(Says("done")) as server:
        attempt = attempt_on(server, config={"env": env})
        attempt.run()

    assert server.requests == []
    assert attempt.failure == (FailedCode.AUTH, "config.env.NPM_TOKEN: the Secret 'npm' has no key 'token'")
