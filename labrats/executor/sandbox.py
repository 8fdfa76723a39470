"""Confines an agent's processes by bubblewrap, where the engine was told to.

They see the machine's programs, read-only, and may write to their workspace, home and scratch folder. They see nothing
else of the engine or of its user, and no process but their own. They may use the network: they need their model.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from labrats.executor.run import Run

_OPTIONS: Final = (
    *("--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
)


def confined(command: Sequence[str], run: Run) -> list[str]:
    """What to run in the place of `command`: the same in a sandbox, or itself where there is none.

    A signal to a sandbox ends all that is in it, at once.
    """
    if (sandbox := run.task.sandbox) is None:
        return list(command)
    hidden = [Path(folder) for folder in sandbox.hidden if Path(folder).is_dir()]
    arguments = [sandbox.program, *_OPTIONS]
    for folder in hidden:
        arguments += ["--tmpfs", str(folder)]
    for folder in _needed(command[0], hidden):
        arguments += ["--ro-bind", str(folder), str(folder)]
    for folder in (run.folder / "home", run.folder / "tmp", run.workspace):
        arguments += ["--bind", str(folder), str(folder)]
    return [*arguments, "--chdir", str(run.workspace), "--", *command]


def _needed(program: str, hidden: Sequence[Path]) -> list[Path]:
    """What is hidden but holds programs: the folders of PATH, and where this one is installed."""
    on_path = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    found = [*on_path, _package_of(Path(program)), _package_of(Path(program).resolve())]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir() and any(map(folder.is_relative_to, hidden))]


def _package_of(program: Path) -> Path:
    """The folder with all that a program needs: of one from npm, the `node_modules` that it is in."""
    modules = [folder for folder in program.parents if folder.name == "node_modules"]
    return modules[-1] if modules else program.parent
