"""A further kernel, for tests of what the machine's own may not offer: User-Mode Linux, which is a program.

It has the machine's files, cgroup v2 with all controllers, and no network. It starts in two seconds.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

_MEMORY: Final = "1024M"
_SECONDS: Final = 300.0
_CPU: Final = Path("/proc/cpuinfo")
_LARGE_REGISTERS: Final = Path(__file__).with_name("large_registers.c")
_MARK: Final = "status of the command: "
_INIT: Final = """\
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LANG=C.UTF-8 HOME=/root PYTHONDONTWRITEBYTECODE=1 NO_COLOR=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ip link set lo up
cd {folder}
{command}
echo "{mark}$?"
echo o > /proc/sysrq-trigger
sleep 60
"""


def run_in_own_kernel(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command as root in a kernel of its own, and return its output. It starts in the folder of the project.

    folder: for the script that starts the command. The command has an empty `/tmp`, and changes no file elsewhere.
    Skips the test without root or the program; with CI=true the test fails. Raises AssertionError if the command fails.
    """
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip
    if (kernel := shutil.which("linux.uml")) is None or os.geteuid() != 0:
        give_up("needs root, and User-Mode Linux: run `make setup`")
    init, project = folder / "init", Path(__file__).parents[2]
    words = shlex.join(map(str, command))
    init.write_text(_INIT.format(folder=shlex.quote(str(project)), command=words, mark=_MARK))
    init.chmod(0o755)
    options = ["rootfstype=hostfs", "rootflags=/", "ro", f"mem={_MEMORY}", f"init={init}", "quiet"]
    console = ["con=null", "con0=fd:0,fd:1"]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "TMPDIR": str(folder), **_preloaded(folder)}
    done = subprocess.run(
        [kernel, *options, *console], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=_SECONDS, check=False,
    )  # fmt: skip
    output, found, status = done.stdout.partition(_MARK)
    assert found, f"the kernel ended without the end of the command:\n{done.stdout}{done.stderr}"
    assert status.split()[0] == "0", output
    return output


def python(*arguments: str | Path) -> Sequence[str | Path]:
    """Return the command that runs this Python."""
    return [sys.executable, *arguments]


def _preloaded(folder: Path) -> dict[str, str]:
    """Return the variables with which the kernel runs on processors whose registers are too large for it."""
    if "amx_tile" not in _CPU.read_text():
        return {}
    library = folder / "large_registers.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, _LARGE_REGISTERS, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}
