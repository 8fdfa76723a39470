"""Run an agent's processes in a bubblewrap sandbox, if the engine's settings enable it.

The processes can write to their workspace, home and scratch folder, and can read the system's programs, the programs on
PATH and the paths that the engine's settings list. They see no other files of the machine, and no other processes.
"""

import os
import resource
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from labrats.executor.context import RunContext
from labrats.model.network import is_restricted
from labrats.model.protocol import CLAIM_FILE, ResourceLimits, Sandbox
from labrats.processes import OOM_SCORE_FILE, agent_oom_score, threads_of_user
from labrats.sandbox.bubblewrap import TEMPORARY, VAR_TEMPORARY, confine, contains, is_for_any_program, package_in_opt
from labrats.sandbox.control_groups import THREADS_PER_PROCESS
from labrats.sandbox.etc_snapshots import EtcSnapshots, SnapshotFailed

_SHARE_OF_DESCRIPTORS: Final = 0.75
_FILE_BLOCK_BYTES: Final = 512
"""The unit of `ulimit -f`."""

_FILE_MARGIN_BYTES: Final = 2**30
_THREADS_FACTOR: Final = 2
"""Bytes of a single file above the limit on the disk, and threads for each that an attempt may have. Beyond the limits
of the kernel, an agent fails without a stated reason. The sampler ends the attempt before that, and says why.
"""

_MODULES: Final = "node_modules"
_SHIMS: Final = "shims"
"""Name of the folder in which pyenv, rbenv, asdf and mise install wrappers for programs in the user's home."""


@contextmanager
def sandboxed_command(
    command: Sequence[str], context: RunContext, shared: Collection[Path] = (), *, is_of_caller: bool = False
) -> Iterator[list[str]]:
    """Yield the command that runs `command` in the attempt's sandbox, or `command` itself if it has none.

    The command must end before the context exits, since its view of `/etc` may then be deleted.

    shared:       files of the engine's user that the program may read and write, such as a login that it renews.
    is_of_caller: whether the job's caller has chosen the program. The sandbox shows the others, with what is beside
                  them, and could otherwise show any file.
    """
    if (sandbox := context.task.sandbox) is None:
        yield list(command)
        return
    with _etc_snapshot(sandbox, context.events.log) as etc:
        confined = _confined(
            command,
            sandbox,
            context,
            writable=[*_existing(context.credentials), *shared],
            etc=etc,
            variables={name: value for name, value in context.variables().items() if is_for_any_program(name)},
            is_of_caller=is_of_caller,
        )
        # Outside of the sandbox, as /proc is read-only in it.
        yield [*_with_kernel_limits(context.task.limits), *confined]


@contextmanager
def sandboxed_tool(
    command: Sequence[str],
    context: RunContext,
    readable: Collection[Path] = (),
    writable: Collection[Path] = (),
    *,
    offline: bool = False,
) -> Iterator[list[str]]:
    """Yield the command that runs a program of the engine on an agent's files, in the attempt's sandbox if it has one.

    The program gets none of the job's variables, by which the agent's files could become part of it.

    offline: give it no network, as always in a job with a network rule.
    """
    if (sandbox := context.task.sandbox) is None:
        yield list(command)
        return
    offline = offline or is_restricted(context.task.config.network)
    with _etc_snapshot(sandbox, lambda _: None) as etc:
        yield _confined(command, sandbox, context, readable=readable, writable=writable, etc=etc, offline=offline)


def _confined(
    command: Sequence[str],
    sandbox: Sandbox,
    context: RunContext,
    *,
    readable: Collection[Path] = (),
    writable: Collection[Path] = (),
    etc: Path | None,
    variables: Mapping[str, str] | None = None,
    offline: bool = False,
    is_of_caller: bool = False,
) -> list[str]:
    """Return the command in the sandbox, with the paths that it needs."""
    program = None if is_of_caller else command[0]
    # The engine knows the processes of the attempt by the mount of its claim.
    claim = filter(Path.exists, [context.credentials.with_name(CLAIM_FILE)])
    shown = [*_programs(program, sandbox), *map(Path, sandbox.readable), *readable, *claim]
    needed = [*_places_of(program), *map(Path, sandbox.readable), *readable]
    private = [path for path in sandbox.private if not any(_overlap(Path(path), each) for each in needed)]
    context.create_folders()
    writable = [context.home, context.scratch, context.workspace, *writable]
    _remove_links(context.scratch, [*shown, *writable])
    return confine(
        command,
        replace(sandbox, readable=tuple(dict.fromkeys(map(str, shown))), private=tuple(private)),
        cwd=context.workspace,
        writable=writable,
        scratch=context.scratch,
        whole=needed,
        etc=etc,
        variables=variables,
        offline=offline,
    )


def _with_kernel_limits(limits: ResourceLimits) -> list[str]:
    """Return the start of a command whose program has limits of the kernel, and is ended before this process.

    See `raise_oom_score` for the latter. The program leaves some descriptors to the executor. The kernel counts threads
    for all processes of a user, so that those that run already are added, and none for root. There is no limit on
    addresses (RLIMIT_AS): with one, Node, Go and the JVM do not start.
    """
    words = [f"ulimit -n {int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * _SHARE_OF_DESCRIPTORS)}"]
    if limits.disk_bytes is not None:
        words.append(f"ulimit -f {(limits.disk_bytes + _FILE_MARGIN_BYTES) // _FILE_BLOCK_BYTES}")
    if limits.processes is not None and os.geteuid() != 0:
        most = threads_of_user() + limits.processes * THREADS_PER_PROCESS * _THREADS_FACTOR
        words.append(f"{{ ulimit -p {most} 2> /dev/null || ulimit -u {most}; }}")  # dash has -p, and bash has -u
    words.append(f"{{ echo {agent_oom_score()} > {OOM_SCORE_FILE} || true; }} 2> /dev/null")
    return ["/bin/sh", "-c", " && ".join([*words, 'exec "$@"']), "sh"]


@contextmanager
def _etc_snapshot(sandbox: Sandbox, log: Callable[[str], None]) -> Iterator[Path | None]:
    """Yield a snapshot of `/etc`. Yield None if the engine uses none, or if this one fails, which is logged."""
    with ExitStack() as stack:
        snapshot = None
        if sandbox.etc_snapshots:
            try:
                snapshot = stack.enter_context(EtcSnapshots(Path(sandbox.etc_snapshots)).current())
            except SnapshotFailed as failure:
                log(f"[the sandbox starts slowly, without a snapshot of /etc: {failure}]")
        yield snapshot


def _remove_links(scratch: Path, paths: Sequence[Path]) -> None:
    """Remove links below `scratch` that lead to paths in `/tmp` and `/var/tmp`, which it replaces.

    An earlier program of the attempt may have left them. Bubblewrap would follow them, and create mount points outside.
    """
    for path, replaced in product(paths, (TEMPORARY, VAR_TEMPORARY)):
        if contains(replaced, path):
            place = scratch
            for part in path.relative_to(replaced).parts:
                place /= part
                if place.is_symlink():
                    place.unlink()


def _existing(folder: Path) -> list[Path]:
    return [folder] if folder.is_dir() else []


def _programs(program: str | None, sandbox: Sandbox) -> Iterator[Path]:
    """Yield the paths that contain programs: the folders of PATH, and the place of `program`, if there is one."""
    private = [Path.home(), *map(Path, sandbox.hidden)]
    for folder in (Path(word) for word in os.environ.get("PATH", os.defpath).split(os.pathsep) if word):
        found = package_in_opt(folder)
        # Shims do not work without the user's home; the system's program of the same name may be found instead.
        if found.is_absolute() and found.name != _SHIMS and not any(contains(found, path) for path in private):
            yield found
    for place in _installed(program):
        package = _package_of(place)
        yield place if any(contains(package, path) for path in private) else package


def _places_of(program: str | None) -> Iterator[Path]:
    """Yield a program, and the `node_modules` that it needs; nothing for a name."""
    for place in _installed(program):
        package = _package_of(place)
        yield package if package.name == _MODULES else place


def _installed(program: str | None) -> tuple[Path, ...]:
    """Return the path of a program, and the one to which it leads; nothing for a name."""
    return (Path(program), Path(program).resolve()) if program and os.path.isabs(program) else ()


def _overlap(one: Path, other: Path) -> bool:
    """Return whether one of the paths contains the other."""
    return contains(other, one) or contains(one, other)


def _package_of(program: Path) -> Path:
    """Return the folder with the program's dependencies: the outermost `node_modules`, or the program's own folder."""
    modules = [folder for folder in program.parents if folder.name == _MODULES]
    return modules[-1] if modules else program.parent
