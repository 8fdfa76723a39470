"""Without each single defence that the obedient agent cannot show, a named test fails.

tests/acceptance/test_injections.py shows the other defences. A defence is switched off in every process of the test.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from labrats.sandbox.landlock import can_scope_sockets
from tests.acceptance.test_injections import SHOWN_BY_GOALS, SHOWN_WITHOUT_SANDBOX
from tests.support.weakened_labrats import NOTHING_TO_REPLACE, VARIABLE, WEAKENINGS

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[2]
SANDBOX: Final = "tests/unit/executor/test_agent_sandbox.py::"
USERS: Final = "tests/unit/test_sandbox_users.py::"
EGRESS: Final = "tests/unit/executor/egress/test_proxy.py::"
KEY_PROXY: Final = "tests/unit/executor/key_proxy/test_proxy.py::"
CLONES: Final = "tests/unit/executor/test_workspace.py::"
SHOWN_BY_TESTS: Final[Mapping[str, str]] = {
    "session of its own": f"{USERS}test_a_confined_process_has_a_session_of_its_own",
    "namespace of the host name": f"{USERS}test_a_confined_process_has_its_own_namespace",
    "covers of the engine's folders": f"{USERS}test_files_of_the_engine_and_of_other_jobs_do_not_exist",
    "hidden private settings": f"{SANDBOX}test_agent_reads_no_private_file_of_the_system",
    "hidden private software": f"{SANDBOX}test_agent_reads_no_private_file_beside_installed_programs",
    "read-only files of the kernel": f"{SANDBOX}test_agent_can_change_nothing_of_the_machine_in_proc",
    "read-only devices": f"{SANDBOX}test_agent_can_use_but_not_change_the_devices_of_the_machine",
    "limit on core dumps": f"{SANDBOX}test_crash_of_an_agent_starts_no_program_outside",
    "variables of the loader": f"{SANDBOX}test_variables_of_the_loader_reach_the_agent_but_not_bubblewrap",
    "scope of sockets": f"{SANDBOX}test_agent_cannot_connect_to_a_unix_socket_of_the_machine",
    "secrets for trusted jobs only": "tests/unit/files/test_attempt_inputs.py::"
    "test_job_of_an_external_contributor_gets_no_secret_variables",
    "caches by trust": "tests/unit/model/test_workspace_setup.py::test_scope_is_that_of_repository_owner_and_trust",
    "comparison of the server's name": f"{EGRESS}test_tunnel_for_https_ends_unless_it_begins_with_tls_for_its_host",
    "comparison of the Host header": f"{EGRESS}test_tunnel_for_http_carries_one_request_for_its_host",
    "addresses of clones": f"{CLONES}test_forbidden_address_receives_no_request",
    "one lookup for a clone": f"{CLONES}test_git_connects_to_the_checked_address_without_a_name_lookup",
    "refusal of redirects of clones": f"{CLONES}test_redirect_is_not_followed",
    "checkout in the sandbox": f"{CLONES}test_repository_is_checked_out_in_the_sandbox",
    "token of the key proxy": f"{KEY_PROXY}test_wrong_token_is_refused",
    "budget of the key proxy": f"{KEY_PROXY}test_requests_over_a_limit_are_refused",
    "room for requests at once": f"{KEY_PROXY}test_requests_at_once_do_not_exceed_a_limit_together",
    "headers of gateways": f"{KEY_PROXY}test_headers_that_choose_another_server_or_path_are_not_forwarded",
}
"""Defences, each with a test that fails without it."""

OF_ROOT: Final = ("read-only devices", "hidden private settings")
"""Defences against an agent of root."""


def test_every_defence_is_shown() -> None:
    shown = {*SHOWN_BY_GOALS, *SHOWN_WITHOUT_SANDBOX, *SHOWN_BY_TESTS}
    assert set(WEAKENINGS) == shown


@pytest.mark.parametrize("defence", SHOWN_BY_TESTS)
def test_without_a_single_defence_its_test_fails(tmp_path: Path, defence: str) -> None:
    if defence in OF_ROOT and os.geteuid() != 0:
        pytest.skip("an agent of root is needed")
    if defence == "scope of sockets" and not can_scope_sockets():
        pytest.skip("the kernel has no Landlock ABI 6 (Linux 6.12)")
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nsys.path.append({str(ROOT)!r})\n"
        f"from tests.support.weakened_labrats import weaken\nweaken(os.environ[{VARIABLE!r}])\n"
    )
    test = SHOWN_BY_TESTS[defence]
    assert run_test(test, {}) == pytest.ExitCode.OK
    environment = {VARIABLE: defence, "PYTHONPATH": str(tmp_path)}
    assert run_test(test, environment) == pytest.ExitCode.TESTS_FAILED, f"{test} passes without the {defence}"


def run_test(test: str, environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Error in sitecustomize" not in done.stderr, done.stderr
    assert NOTHING_TO_REPLACE not in done.stderr, done.stderr  # the program ends with the status of a failed test
    return done.returncode
