"""Tests of agents in a real bubblewrap sandbox."""

import os
import resource
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.executor.agent_sandbox import sandboxed_command, sandboxed_tool
from labrats.model.config import JobConfig
from labrats.model.job import FailedCode
from labrats.model.network import AllowedHosts, Network
from labrats.model.protocol import Sandbox
from labrats.model.workspace_setup import Setup
from labrats.processes import agent_oom_score, with_environment
from labrats.sandbox.bubblewrap import confine, private_paths, private_software, public_entries
from labrats.sandbox.landlock import can_scope_sockets
from tests.unit.executor.attempts import (
    DEADLINE_SECONDS,
    AttemptFolder,
    a_task,
    a_unique_name,
    an_attempt,
    some_work,
    the_next_attempt,
    wait_until,
)

NOBODY = 65534


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    hidden = (str(tmp_path / "engine"), str(tmp_path / "attempt"))
    return Sandbox(program=program, hidden=hidden, etc_snapshots=str(tmp_path / "engine" / "etc-snapshots"))


def a_confined_attempt(tmp_path: Path, sandbox: Sandbox, script: str, **inputs: Any) -> AttemptFolder:
    """Build an attempt whose agent program is a shell script, beside an engine's folder with a key."""
    program = tmp_path / "programs" / "agent"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "admin.key").write_text("test-key-of-the-engine\n")
    config = JobConfig(provider="claude", env=inputs.pop("env", None))
    inputs |= {"config": config, "programs": {"claude": str(program)}, "sandbox": sandbox}
    return an_attempt(tmp_path, **inputs)


def output_of(attempt: AttemptFolder) -> str:
    """Run the attempt, and return the content of the file `out` that the agent has written in its workspace."""
    attempt.run()
    return (attempt.workspace / "out").read_text()


def test_agent_writes_to_its_workspace_home_and_scratch_folder(tmp_path: Path, sandbox: Sandbox) -> None:
    script = 'pwd > out; touch "$HOME/in-home" "$TMPDIR/in-scratch" && cat > prompt'
    attempt = a_confined_attempt(tmp_path, sandbox, script)
    assert output_of(attempt).strip() == str(attempt.workspace)
    assert (attempt.path / "home" / "in-home").exists()
    assert (attempt.path / "tmp" / "in-scratch").exists()
    assert (attempt.workspace / "prompt").read_text() == "Fix the bug."


def test_resumed_agent_uses_the_folders_of_the_earlier_attempt(tmp_path: Path, sandbox: Sandbox) -> None:
    init = """echo '{"type": "system", "subtype": "init", "session_id": "0190-test"}'"""
    script = f'{init}; echo "$HOME $TMPDIR" >> out; pwd >> "$HOME/been"; cat "$HOME/been" >> out'
    first = a_confined_attempt(tmp_path, sandbox, script)
    first.run()
    second = the_next_attempt(first)
    second.run()

    places, workspace = f"{first.path}/home {first.path}/tmp", str(first.workspace)
    out = (first.workspace / "out").read_text().splitlines()
    assert out == [places, workspace, places, workspace, workspace]
    assert second.outcome.outputs.files_changed == 1


def test_system_programs_are_bound_once_and_engine_folders_among_them_are_covered(tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    (tmp_path / "link").symlink_to("/usr/bin")
    readable = ("/usr/bin", "/usr/local/bin", "/bin", str(tmp_path / "programs"), str(tmp_path / "link"))
    sandbox = Sandbox(program="bwrap", readable=readable, hidden=("/usr/share", "/var"))

    options = confine(["true"], sandbox, cwd=tmp_path, writable=[], scratch=tmp_path, etc=tmp_path)

    bound = [options[index + 1] for index, option in enumerate(options) if option == "--ro-bind"]
    assert bound.count("/usr") == 1
    assert set(readable) & set(bound) == {str(tmp_path / "programs"), str(tmp_path / "link")}
    covered = [options[index + 1] for index, option in enumerate(options) if option == "--tmpfs"]
    assert ("/usr/share" in covered, "/var" in covered) == (True, False)


def test_agent_sees_no_file_of_the_engine(tmp_path: Path, sandbox: Sandbox) -> None:
    script = f"ls -A {tmp_path} {tmp_path}/attempt > out; cat {tmp_path}/engine/admin.key >> out 2>&1"
    out = output_of(a_confined_attempt(tmp_path, sandbox, script))
    assert "test-key-of-the-engine" not in out
    assert "output.jsonl" not in out
    assert set(out.split()) >= {"attempt", "programs", "ws", "home", "tmp"}


def test_agent_can_change_nothing_of_the_machine_in_proc(tmp_path: Path, sandbox: Sandbox) -> None:
    """An agent of root owns many files in /proc, and could remove a disk by one."""
    script = "find /proc -type f -writable -print > out 2> /dev/null; touch /proc/self/comm 2>> out"
    written = output_of(a_confined_attempt(tmp_path, sandbox, script)).splitlines()
    assert written == ["touch: cannot touch '/proc/self/comm': Read-only file system"]


@pytest.mark.parametrize("is_link", ["engine", "shown folder"])
def test_engines_folder_is_covered_where_a_link_leads_to_it(tmp_path: Path, sandbox: Sandbox, is_link: str) -> None:
    volume, link = tmp_path / "volume", tmp_path / "link"
    (volume / "data").mkdir(parents=True)
    (volume / "data" / "key").write_text("test-key-of-the-engine\n")
    link.symlink_to(volume / "data" if is_link == "engine" else volume)
    hidden, shown = (link, volume) if is_link == "engine" else (volume / "data", link)
    confined = replace(sandbox, hidden=(*sandbox.hidden, str(hidden)), readable=(str(shown),))
    attempt = a_confined_attempt(tmp_path, confined, f"ls {shown} > out; cat {shown}/data/key >> out 2>&1")
    out = output_of(attempt)
    assert out.startswith("data\n")
    assert "test-key-of-the-engine" not in out


def test_agent_can_use_but_not_change_the_devices_of_the_machine(tmp_path: Path, sandbox: Sandbox) -> None:
    """An agent of root owns them. The mode in this test is the one that they have."""
    devices = "/dev/full /dev/null /dev/random /dev/tty /dev/urandom /dev/zero"
    change = f"for each in {devices}; do chmod 666 $each 2> /dev/null && echo $each changed; done > out"
    use = "echo x > /dev/null && head -c 3 /dev/zero | wc -c >> out; echo x > /dev/full || echo full >> out"
    assert output_of(a_confined_attempt(tmp_path, sandbox, f"{change}; {use}")).split() == ["3", "full"]


def test_link_in_the_scratch_folder_leads_no_later_start_outside(tmp_path: Path, sandbox: Sandbox) -> None:
    """The first program replaces the folder in /tmp that has the mount points of the second by a link."""
    (tmp_path / "outside").mkdir()
    top = Path("/tmp", tmp_path.parts[2])
    replace_by_link = f"mv {top} /tmp/moved && ln -s /oldroot{tmp_path}/outside {top}"
    setup = Setup(setup=(("sh", "-c", f"{replace_by_link} && echo replaced"),))
    attempt = a_confined_attempt(tmp_path, sandbox, "echo started > out", setup=setup)
    assert output_of(attempt) == "started\n"
    assert "replaced" in attempt.logs
    assert list((tmp_path / "outside").iterdir()) == []


def test_agent_cannot_fill_the_file_in_memory_with_its_prompt(tmp_path: Path, sandbox: Sandbox) -> None:
    """The executor holds it open, so that no limit on the agent's memory would count it."""
    attempt = a_confined_attempt(tmp_path, sandbox, "cat > out; echo more >&0 && echo written >> out")
    assert output_of(attempt) == "Fix the bug."


def test_descriptors_that_an_agent_sends_leave_some_to_others(tmp_path: Path, sandbox: Sandbox) -> None:
    """The kernel limits the descriptors that all processes of a user have sent, and nobody has received, together."""
    script = """/usr/bin/python3 - <<'END' > out
import resource, socket
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft, hard)
END"""
    own = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    soft, hard = map(int, output_of(a_confined_attempt(tmp_path, sandbox, script)).split())
    assert soft == hard == int(own * 0.75)


def test_path_entry_does_not_reveal_the_engines_folder(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/engine:{tmp_path}:{os.environ['PATH']}")
    shown = replace(sandbox, readable=(str(tmp_path),))
    out = output_of(a_confined_attempt(tmp_path, shown, f"ls -A {tmp_path}/engine > out; ls {tmp_path} >> out"))
    assert "admin.key" not in out
    assert "engine" in out.split()


def test_shim_of_a_hidden_home_does_not_replace_the_systems_program(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "pyenv" / "shims" / "ls"
    shim.parent.mkdir(parents=True)
    shim.write_text(f'#!/bin/sh\nexec {tmp_path}/pyenv/libexec/pyenv exec "$0"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:/usr/bin:/bin")
    assert output_of(a_confined_attempt(tmp_path, sandbox, "ls / > out")).split()


def test_agent_reads_but_does_not_write_the_paths_of_a_setting(tmp_path: Path, sandbox: Sandbox) -> None:
    tool = tmp_path / "toolchain" / "tool"
    tool.parent.mkdir()
    tool.write_text("a tool")
    shown = replace(sandbox, readable=(str(tool.parent), "/nowhere/at/all"))
    script = f"cat {tool} > out; touch {tool.parent}/written || echo '; read-only' >> out"
    assert output_of(a_confined_attempt(tmp_path, shown, script)) == "a tool; read-only\n"
    assert not (tool.parent / "written").exists()


def test_agent_sees_no_other_folder_of_the_machine(tmp_path: Path, sandbox: Sandbox) -> None:
    places = "/boot /media /mnt /root/.bashrc /srv /run/lock /var/lib"
    script = f"for place in {places}; do ls -d $place 2>/dev/null; done > out; true"
    assert output_of(a_confined_attempt(tmp_path, sandbox, script)) == ""


def test_agent_writes_to_no_other_folder(tmp_path: Path, sandbox: Sandbox) -> None:
    places = f"/ /etc /usr /var /run /sys/devices/system/cpu {tmp_path}/programs"
    script = f"for place in {places}; do touch $place/written 2>/dev/null && echo $place; done > out; true"
    assert output_of(a_confined_attempt(tmp_path, sandbox, script)) == ""


def test_variables_of_the_loader_reach_the_agent_but_not_bubblewrap(tmp_path: Path, sandbox: Sandbox) -> None:
    """A library of the repository would otherwise run outside of the sandbox, or a command, by the shell before it."""
    bubblewrap = tmp_path / "bwrap"
    bubblewrap.write_text(
        f'#!/bin/sh\nenv >> {tmp_path}/seen-by-bubblewrap\necho "$@" >> {tmp_path}/arguments\n'
        f'exec {sandbox.program} "$@"\n'
    )
    bubblewrap.chmod(0o755)
    variables = {
        "LD_SDK_KEY": "test-secret",
        "LD_LIBRARY_PATH": "/nowhere",
        "GLIBC_TUNABLES": "glibc.malloc.check=0",
        "CI": "1",
    }
    variables |= {"SHELLOPTS": "xtrace", "PS4": "$(touch /tmp/x)", "ENV": "./env", "BASH_ENV": "./env"}
    script, watched = 'echo "$LD_LIBRARY_PATH $CI $LD_SDK_KEY" > out', replace(sandbox, program=str(bubblewrap))

    assert output_of(a_confined_attempt(tmp_path, watched, script, env=variables)) == "/nowhere 1 test-secret\n"
    assert "LD_SDK_KEY" not in (tmp_path / "arguments").read_text()  # LaunchDarkly's; everybody can read arguments
    seen = (tmp_path / "seen-by-bubblewrap").read_text()
    assert "CI=1\n" in seen
    assert not {name for name in variables if f"{name}=" in seen} - {"CI", "LD_SDK_KEY"}


def test_agent_has_no_capability_and_cannot_gain_one(tmp_path: Path, sandbox: Sandbox) -> None:
    gain = "unshare --user --map-root-user true 2>/dev/null && echo gained >> out; true"
    script = f"grep ^Cap /proc/self/status > out; {gain}"
    lines = output_of(a_confined_attempt(tmp_path, sandbox, script)).splitlines()
    assert [line.split() for line in lines] == [
        [f"Cap{name}:", "0" * 16] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")
    ]


@pytest.mark.parametrize("has_snapshots", [True, False])
def test_agent_reads_no_private_file_of_the_system(tmp_path: Path, sandbox: Sandbox, has_snapshots: bool) -> None:
    if not has_snapshots:
        sandbox = replace(sandbox, etc_snapshots=None)
    private = private_paths(Path("/etc"))
    assert Path("/etc/shadow") in private
    names = " ".join(f"'{path}'" for path in private)
    script = f"for name in {names}; do cat $name 2>/dev/null; ls -A $name/ 2>/dev/null; done > out; true"
    assert output_of(a_confined_attempt(tmp_path, sandbox, script)) == ""


@pytest.mark.parametrize("shown_by", ["PATH", "a setting", "its program"])
def test_agent_reads_no_private_file_beside_installed_programs(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, shown_by: str
) -> None:
    software = tmp_path / "opt" / "tool" / "bin"
    monkeypatch.setattr("labrats.sandbox.bubblewrap._OPTIONAL_SOFTWARE", tmp_path / "opt")
    monkeypatch.setenv("PATH", f"{software}:{os.environ['PATH']}")
    for name, mode in (("tool", 0o755), ("key", 0o600), ("secret/key", 0o644), ("open/key", 0o600)):
        (software / name).parent.mkdir(parents=True, exist_ok=True)
        (software / name).write_text(f"{name} ")
        (software / name).chmod(mode)
    (software / "secret").chmod(0o700)
    private = sorted(path for path in private_software() if path.is_relative_to(software))
    assert private == [software / "key", software / "open" / "key", software / "secret"]

    covered = (*map(str, private), str(software / "removed"))
    readable = (str(software / "secret"),) if shown_by == "a setting" else ()
    confined = replace(sandbox, readable=readable, private=covered)
    monkeypatch.setenv("PATH", f"{software}/open:{os.environ['PATH']}")  # shown by itself, too
    files = " ".join(f"{software}/{name}" for name in ("tool", "key", "open/key", "secret/key"))
    script = f"cat {files} > out; touch {software}/secret/new; true"
    if shown_by == "its program":
        confined = replace(confined, private=(*covered, str(tmp_path / "programs")))
    found = output_of(a_confined_attempt(tmp_path, confined, script))
    assert found == ("tool secret/key " if shown_by == "a setting" else "tool ")


def test_private_file_that_is_replaced_stays_hidden(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the agent reach a private socket beside it."""
    software = tmp_path / "opt"
    software.mkdir()
    monkeypatch.setenv("PATH", f"{software}:{os.environ['PATH']}")
    for name in ("key", "new-key"):
        (software / name).write_text("the key")
        (software / name).chmod(0o600)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(software / "socket"))
        (software / "socket").chmod(0o600)
        confined = replace(sandbox, private=(str(software / "key"),))
        wait = "touch running; while [ -e running ]; do sleep 0.05; done"
        attempt = a_confined_attempt(
            tmp_path, confined, f"{wait}; cat {software}/key > out; ls {software} >> out; true"
        )
        with attempt.started() as process:
            wait_until((attempt.workspace / "running").exists, "the agent runs")
            (software / "new-key").rename(software / "key")
            (attempt.workspace / "running").unlink()
            process.wait()
    assert (attempt.workspace / "out").read_text() == ""


def test_agent_reads_the_systems_settings_from_a_snapshot(tmp_path: Path, sandbox: Sandbox) -> None:
    mounts = "grep -c ' /etc/' /proc/self/mountinfo >> out; true"
    attempt = a_confined_attempt(tmp_path, sandbox, f"cat /etc/passwd > out; touch /etc/written; {mounts}")
    assert output_of(attempt) == Path("/etc/passwd").read_text() + "0\n"
    assert attempt.logs == []


def test_shown_folder_does_not_reveal_the_snapshots(tmp_path: Path, sandbox: Sandbox) -> None:
    shown = replace(sandbox, readable=(str(tmp_path),))
    script = f"ls -A {tmp_path}/engine > out; cat /etc/passwd >> out"
    assert output_of(a_confined_attempt(tmp_path, shown, script)) == Path("/etc/passwd").read_text()


def test_setting_can_show_a_path_in_etc(tmp_path: Path, sandbox: Sandbox) -> None:
    shown = replace(sandbox, readable=("/etc/passwd", "/etc/shadow" if os.geteuid() == 0 else "/etc/hosts"))
    script = f"cat {' '.join(shown.readable)} /etc/group > out"
    texts = [Path(path).read_text() for path in (*shown.readable, "/etc/group")]
    assert output_of(a_confined_attempt(tmp_path, shown, script)) == "".join(texts)


def test_attempt_without_a_snapshot_runs_and_logs_the_reason(tmp_path: Path, sandbox: Sandbox) -> None:
    attempt = a_confined_attempt(tmp_path, replace(sandbox, etc_snapshots="/dev/null/none"), "cat /etc/passwd > out")
    assert output_of(attempt) == Path("/etc/passwd").read_text()
    expected = "[the sandbox starts slowly, without a snapshot of /etc: /dev/null/none: Not a directory]"
    assert attempt.logs == [expected]


def test_private_entries_of_a_folder_are_hidden_at_any_depth(tmp_path: Path) -> None:
    for name, mode in (("open/public", 0o644), ("open/private", 0o600), ("closed/public", 0o644), ("public", 0o644)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "closed").chmod(0o700)
    (tmp_path / "link").symlink_to("open/private")
    shown = [option for option in public_entries(tmp_path) if option.startswith(str(tmp_path))]
    named = {str(Path(option).relative_to(tmp_path)) for option in shown}
    assert named == {".", "open", "open/public", "public", "link"}


def test_unreadable_path_in_a_setting_is_ignored(tmp_path: Path, sandbox: Sandbox) -> None:
    shown = replace(sandbox, readable=("/proc/1/root" if os.geteuid() else "/nowhere", str(tmp_path / "programs")))
    assert output_of(a_confined_attempt(tmp_path, shown, "echo on > out")) == "on\n"


@pytest.mark.parametrize(
    "script",
    ["head -c 70000000 /dev/zero >&2; sleep 60", "head -c 70000000 /dev/zero; echo"],
    ids=["standard error", "a line"],
)
def test_program_that_prints_too_much_fails_with_output_limit(tmp_path: Path, sandbox: Sandbox, script: str) -> None:
    attempt = a_confined_attempt(tmp_path, sandbox, script)
    attempt.run()
    assert attempt.failure[0] is FailedCode.OUTPUT_LIMIT
    assert "64 MiB" in attempt.failure[1]


@pytest.mark.skipif(not can_scope_sockets(), reason="the kernel has no Landlock ABI 6 (Linux 6.12)")
@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_agent_cannot_connect_to_a_unix_socket_of_the_machine(tmp_path: Path, sandbox: Sandbox, kind: str) -> None:
    name = f"labrats-test-{secrets.token_hex(8)}"
    address = f"\0{name}" if kind == "abstract" else f"/run/{name}" if os.geteuid() == 0 else f"{tmp_path}/{name}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        try:
            connect = f"import socket; socket.socket(socket.AF_UNIX).connect({address!r})"
            script = f'/usr/bin/python3 -c "{connect}" > out 2>&1 && echo connected >> out; true'
            out = output_of(a_confined_attempt(tmp_path, sandbox, script))
        finally:
            if kind == "path":
                Path(address).unlink()
    assert out.splitlines()[-1].startswith("PermissionError" if kind == "abstract" else "FileNotFoundError")


def test_agent_uses_and_renews_a_shared_login(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = tmp_path / "user" / ".claude" / ".credentials.json"
    login.parent.mkdir(parents=True)
    login.write_text("test-login")
    (login.parent / "history").write_text("private")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    shared = '"$HOME/.claude/.credentials.json"'
    script = f"cat {shared} > out; echo renewed > {shared}; ls {login.parent} >> out"
    assert output_of(a_confined_attempt(tmp_path, sandbox, script, cli_login=True)) == "test-login"
    assert login.read_text() == "renewed\n"


def test_agent_sees_only_its_own_processes(tmp_path: Path, sandbox: Sandbox) -> None:
    out = output_of(a_confined_attempt(tmp_path, sandbox, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' > out"))
    assert "labrats.executor" not in out


def test_agent_reaches_the_network(tmp_path: Path, sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        attempt = a_confined_attempt(
            tmp_path, sandbox, f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' && echo connected > out"
        )
        assert output_of(attempt).strip() == "connected"


def test_processes_that_the_agent_leaves_running_are_killed(tmp_path: Path, sandbox: Sandbox) -> None:
    with a_unique_name() as name:
        attempt = a_confined_attempt(tmp_path, sandbox, "setsid sleep 300 & echo $! > out", attempt=name)
        assert output_of(attempt).strip().isdecimal()
        assert with_environment("LABRATS_ATTEMPT", name) == []


def test_stop_signal_reaches_the_program_in_the_sandbox(tmp_path: Path, sandbox: Sandbox) -> None:
    script = "trap 'echo stopped >> out; exit' INT; echo started > out; while true; do sleep 0.05; done"
    attempt = a_confined_attempt(tmp_path, sandbox, script)
    with attempt.started() as executor:
        wait_until((attempt.workspace / "out").exists, "the program runs")
        executor.terminate()
        executor.wait(DEADLINE_SECONDS)
    assert (attempt.workspace / "out").read_text() == "started\nstopped\n"


@pytest.mark.parametrize(("pattern", "limit"), [("|/usr/lib/systemd/systemd-coredump %P", 1), ("core", 4096)])
def test_crash_of_an_agent_starts_no_program_outside(tmp_path: Path, pattern: str, limit: int) -> None:
    """The kernel starts the program as root, outside of the sandbox, unless the limit is one byte."""
    (tmp_path / "core_pattern").write_text(f"{pattern}\n")
    program = f"""
import contextlib, pathlib, resource
from labrats.sandbox import bubblewrap
with contextlib.suppress(ValueError):  # an ordinary user may have no more than 0
    resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))
bubblewrap._CORE_PATTERN = pathlib.Path({str(tmp_path / "core_pattern")!r})
bubblewrap.refuse_core_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"({limit}, {limit})"


def test_agent_is_ended_first_also_if_the_executor_could_not_say_so(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files in /proc of an ordinary user's executor, whose memory others cannot read, belong to root."""
    monkeypatch.setenv("PATH", os.defpath)
    user, score = NOBODY if os.geteuid() == 0 else os.geteuid(), ["cat", "/proc/self/oom_score_adj"]
    with (
        TemporaryDirectory() as name,
        some_work(Path(name), a_task(Path(name), sandbox=Sandbox(program=sandbox.program))) as work,
        sandboxed_command(score, work.context) as command,
    ):
        for path in (Path(name), *Path(name).rglob("*")):
            path.chmod(0o777)  # the user may enter it
        done = subprocess.run(command, user=user, capture_output=True, text=True, check=False)
        if user != os.geteuid():  # bubblewrap has created places to mount at, which root may have no right to remove
            subprocess.run(["find", name, "-user", str(user), "-delete"], user=user, check=True)
    assert (done.stdout, done.stderr) == (f"{agent_oom_score()}\n", "")


def test_engine_may_have_its_folders_in_var_tmp(sandbox: Sandbox) -> None:
    """In the sandbox, `/var/tmp` is otherwise a link to `/tmp`."""
    with TemporaryDirectory(dir="/var/tmp") as name:
        attempt = a_confined_attempt(Path(name), sandbox, "echo one > /var/tmp/file; cat /tmp/file > out; ls /var/tmp")
        assert output_of(attempt) == "one\n"
    assert not Path("/var/tmp/file").exists()


@pytest.mark.parametrize(
    ("network", "is_offline"), [("none", True), (AllowedHosts(allow=("pypi.org",)), True), ("open", False)]
)
def test_programs_of_the_engine_on_an_agents_files_have_no_network_in_a_job_with_a_rule(
    tmp_path: Path, sandbox: Sandbox, network: Network, is_offline: bool
) -> None:
    task = a_task(tmp_path, config=JobConfig(network=network), sandbox=sandbox)
    with some_work(tmp_path, task) as work, sandboxed_tool(["git", "add"], work.context) as command:
        assert ("--unshare-net" in command) == is_offline
