"""The sandbox of agents' processes: bubblewrap's options, and a test of them on this machine.

A confined process sees the system's programs and settings, read-only, and the folders that it may write to. It has no
capabilities, cannot create namespaces, and sees no process, Unix socket or file of anyone else. It keeps access to the
network, which it needs for its model, unless it is confined offline.
"""

import ctypes
import os
import resource
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from labrats.libc import CLONE_NEWNS, LIBC
from labrats.model.protocol import Sandbox

_NAMESPACES: Final = (
    *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
    *("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
)
_SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc"),
    *("/nix/store", "/gnu/store", "/run/current-system/sw", "/var/lib/ca-certificates"),
    *("/sys/devices/system/cpu", "/sys/fs/cgroup"),
)
"""Programs, libraries, their settings and the size of the machine, in all Linux distributions."""

_LOADER_VARIABLES: Final = (
    *("LD_ASSUME_KERNEL", "LD_AUDIT", "LD_BIND_NOT", "LD_BIND_NOW", "LD_DEBUG", "LD_DEBUG_OUTPUT", "LD_DYNAMIC_WEAK"),
    *("LD_HWCAP_MASK", "LD_LIBRARY_PATH", "LD_ORIGIN_PATH", "LD_POINTER_GUARD", "LD_PREFER_MAP_32BIT_EXEC"),
    *("LD_PRELOAD", "LD_PROFILE", "LD_PROFILE_OUTPUT", "LD_SHOW_AUXV", "LD_TRACE_LOADED_OBJECTS"),
    *("LD_TRACE_PRELINKING", "LD_USE_LOAD_BIAS", "LD_VERBOSE", "LD_WARN", "GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH"),
)
"""Variables that the dynamic loader (ld.so(8)) and the C library read in every program. Others with `LD_` are not here:
LaunchDarkly's `LD_SDK_KEY` is a secret, and all users of the machine can read bubblewrap's arguments.
"""

_SHELL_VARIABLES: Final = ("BASHOPTS", "BASH_ENV", "BASH_XTRACEFD", "ENV", "PS4", "SHELLOPTS")
"""Variables by which a shell executes commands of its environment, or changes what it does."""

TEMPORARY: Final = Path("/tmp")  # noqa: S108 - the path inside the sandbox
VAR_TEMPORARY: Final = Path("/var/tmp")  # noqa: S108
SETTINGS: Final = Path("/etc")
_LOCAL_SOFTWARE: Final = Path("/usr/local")
_OPTIONAL_SOFTWARE: Final = Path("/opt")
_RESOLVER: Final = SETTINGS / "resolv.conf"
_TEST_SECONDS: Final = 30.0
_TEST_BYTES: Final = 1024 * 1024
_PROCESSES: Final = Path("/proc")
"""Root owns files in it, and could change the machine by them without any capability: those in `/proc/scsi` remove
disks, and those in `/proc/net`, which every process has, change its network.
"""

_INIT: Final = Path("/proc/1")
"""Bubblewrap's process in the sandbox, which ends all others with its parent. An agent could write to its memory."""

_READ_ONLY_MOUNTS: Final = (_INIT, _PROCESSES, Path("/"))
_READ_ONLY: Final = "read-only"
_TEST_COMMAND: Final = (
    "sh",
    "-c",
    f"test -w /proc/sys/kernel/core_pattern || echo {_READ_ONLY}; exec grep CapEff: /proc/self/status",
)
_NO_CAPABILITY: Final = "0" * 16

_DEVICES: Final = ("/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero")
"""The devices of the machine that bubblewrap binds. It has no option to bind a device read-only."""

_CORE_PATTERN: Final = Path("/proc/sys/kernel/core_pattern")
_NO_CORE_PROGRAM: Final = 1
"""The limit on the size of a core dump with which the kernel starts no program for it."""

_MS_READ_ONLY, _MS_REMOUNT, _MS_BIND, _MS_RECURSIVE, _MS_PRIVATE = 1, 1 << 5, 1 << 12, 1 << 14, 1 << 18
_KEPT_FLAGS: Final = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME
_MS_RELATIVE_TIMES: Final = 1 << 21


def confine(
    command: Sequence[str],
    sandbox: Sandbox,
    *,
    cwd: Path,
    writable: Sequence[Path],
    scratch: Path,
    whole: Sequence[Path] = (),
    etc: Path | None = None,
    variables: Mapping[str, str] | None = None,
    offline: bool = False,
) -> list[str]:
    """Return the command that runs `command` in the sandbox.

    whole:     files and folders to show with what other users may not read. They are in shown folders.
    writable:  folders to bind for writing, under their own paths. scratch: the folder to bind as `/tmp`, too.
    etc:       a snapshot of `/etc` to bind in its place. Without one, each world-readable file is bound by itself.
    variables: environment variables that only the processes in the sandbox get; see `is_for_any_program`.
    offline:   give the processes no network.
    """
    system = [path for path in map(Path, _SYSTEM) if path != SETTINGS]
    readable = [path for path in map(Path, sandbox.readable) if os.access(path, os.R_OK)]
    shown = [path for path in readable if not (_is_in(path, system) and _is_in(path.resolve(), system))]
    hidden = list(dict.fromkeys(_places_of(sandbox.hidden, system, shown)))
    if any(contains(SETTINGS, path) for path in (*shown, *writable)):
        etc = None  # bubblewrap cannot create a mount point in a read-only snapshot
    in_var = any(contains(VAR_TEMPORARY, path) for path in (*shown, *writable))
    options = [*_NAMESPACES, *(["--unshare-net"] if offline else []), *_system(etc)]
    options += [
        *("--dev", "/dev", *_shared_memory(sandbox.shm_bytes), "--proc", str(_PROCESSES), "--tmpfs", str(_INIT)),
        *("--bind", str(scratch), str(TEMPORARY)),
        # Bubblewrap cannot create a mount point below a link.
        *(("--bind", str(scratch)) if in_var else ("--symlink", str(TEMPORARY))),
        str(VAR_TEMPORARY),
    ]
    options += [word for name, value in (variables or {}).items() for word in ("--setenv", name, value)]
    options += [word for path in shown for word in _bind(path)]
    # The covers come last, so that no later option uncovers the engine's folders.
    private = [path.parent for path in map(Path, sandbox.private) if _is_in(path, [*system, *shown])]
    partly_shown = [path for path in _outermost(private) if path.is_dir()]
    for folder in partly_shown:
        options += ["--tmpfs", str(folder), *public_entries(folder)]
    options += [word for path in whole if _is_in(path, partly_shown) and path.exists() for word in _bind(path)]
    options += [word for path in hidden for word in ("--tmpfs", str(path))]
    options += [word for path in writable for word in ("--bind", str(path), str(path))]
    options += [word for path in (*hidden, *partly_shown, *_READ_ONLY_MOUNTS) for word in ("--remount-ro", str(path))]
    return [*_own_mounts(sandbox), sandbox.program, *options, "--chdir", str(cwd), "--", *command]


def _own_mounts(sandbox: Sandbox) -> Sequence[str]:
    """Return the beginning of a command that sees no later mounts of the machine; see `separate_mounts`."""
    if sandbox.unshare is None:
        return ()
    return sandbox.unshare, "--user", "--map-current-user", "--mount", "--propagation", "private", "--"


def is_for_any_program(variable: str) -> bool:
    """Return whether a variable changes what any program, or any shell, does: it may name code to load.

    Bubblewrap, and the shell that starts it, are not confined and must not get it. Its value may be a path of the
    workspace, in which the repository has put a library.
    """
    return variable in (*_LOADER_VARIABLES, *_SHELL_VARIABLES)


def _shared_memory(size: int | None) -> Sequence[str]:
    """Return the options that limit the files in `/dev`, which are in memory. size: bytes for `/dev/shm`."""
    if size is None:
        return ()
    return "--size", str(size), "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"  # noqa: S108


def bubblewrap_problem(program: str, etc: Path | None = None, unshare: str | None = None) -> str | None:
    """Test bubblewrap with the real options. Return the problem if they do not confine a process here.

    etc: see `confine`. unshare: see Sandbox.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        sandbox = Sandbox(program=program, unshare=unshare, shm_bytes=_TEST_BYTES)
        command = confine(_TEST_COMMAND, sandbox, cwd=folder, writable=[folder], scratch=folder, etc=etc)
        try:
            test = subprocess.run(command, capture_output=True, text=True, timeout=_TEST_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return f"bwrap did not end within {_TEST_SECONDS:g} seconds"
    if test.returncode != 0:
        return f"bwrap failed: {test.stderr.strip() or f'exit status {test.returncode}'}"
    capabilities, parameters = test.stdout.rpartition("CapEff:")[2].strip(), test.stdout.partition("\n")[0]
    if capabilities != _NO_CAPABILITY:
        return f"a confined process keeps the capabilities {capabilities}"
    if parameters != _READ_ONLY:
        return "a confined process may change the kernel's parameters in /proc/sys"
    return None


@cache
def separate_mounts() -> None:
    """Keep later mounts of the machine out of this process and its descendants, and bind devices read-only, once.

    In a sandbox, such a mount would be writable, for example the kernel's list of programs for formats of files, which
    systemd mounts when somebody looks at its place. Devices can be read and written all the same. An agent of root owns
    them, and could otherwise change their permissions for the whole machine. Does nothing for an ordinary user, for
    whom `confine` does the former, and in a container that may not mount: its mounts and devices are its own.
    """
    if os.geteuid() != 0 or LIBC.unshare(CLONE_NEWNS) != 0:
        return
    with suppress(PermissionError):
        _mount("/", _MS_PRIVATE | _MS_RECURSIVE)
        for device in filter(os.path.exists, _DEVICES):
            flags = os.statvfs(device).f_flag
            _mount(device, _MS_BIND)
            relative_times = _MS_RELATIVE_TIMES if flags & os.ST_RELATIME else 0
            _mount(device, _MS_REMOUNT | _MS_BIND | _MS_READ_ONLY | flags & _KEPT_FLAGS | relative_times)


@cache
def refuse_core_dumps() -> None:
    """Keep the kernel from passing crashes of this process and its descendants to a program of the machine, once.

    Such a program, like systemd-coredump, runs as root outside of the sandbox and stores the memory of what has
    crashed. `refuse_calls` keeps the limit: with 0, the kernel would start the program again. Does nothing where the
    kernel writes a file instead: an agent's is in the sandbox. Does not help an ordinary user who may not raise 0.
    """
    with suppress(OSError, ValueError):
        if _CORE_PATTERN.read_text().startswith("|"):
            resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE_PROGRAM, _NO_CORE_PROGRAM))


def _mount(path: str, flags: int) -> None:
    if LIBC.mount(path.encode(), path.encode(), None, ctypes.c_ulong(flags), None) != 0:
        raise OSError(ctypes.get_errno(), "mount", path)


def _system(etc: Path | None) -> Iterator[str]:
    """Yield the options that bind the system's files. etc: see `confine`."""
    for path in map(Path, _SYSTEM):
        if path.is_symlink():
            yield from ("--symlink", os.readlink(path), str(path))
        elif path == SETTINGS:
            yield from ("--ro-bind", str(etc), str(path)) if etc else public_entries(path)
        elif os.path.exists(path):
            yield from _bind(path)
    resolver = _RESOLVER.resolve()
    if resolver.is_file() and not contains(SETTINGS, resolver):
        yield from _bind(resolver)


def public_entries(folder: Path) -> Iterator[str]:
    """Yield options that bind the world-readable files below `folder`, each by itself.

    The cover of a private file would be gone once the file is replaced, as `passwd` replaces `/etc/shadow`.
    """
    yield from ("--dir", str(folder))
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_symlink():
            yield from ("--symlink", os.readlink(path), str(path))
        elif is_private(entry.stat(follow_symlinks=False).st_mode):
            continue
        elif entry.is_dir() and private_paths(path):
            yield from public_entries(path)
        elif entry.is_dir() or entry.is_file():
            yield from _bind(path)


def _places_of(folders: Iterable[str], system: Sequence[Path], shown: Sequence[Path]) -> Iterator[Path]:
    """Yield the places at which confined processes would see folders, also those to which links lead.

    system, shown: see `confine`. Of the system's folders, a link is bound as a link, and a shown one as its target.
    """
    roots = {root: root.resolve() for root in (*shown, *(each for each in system if not each.is_symlink()))}
    for path in filter(Path.is_dir, map(Path, folders)):
        if _is_in(path, [*system, *shown]):
            yield path
        target = path.resolve()
        for root, root_target in roots.items():
            if contains(root_target, target):
                yield root / target.relative_to(root_target)


def contains(folder: Path, path: Path) -> bool:
    """Return whether `path` is `folder` or lies in it, much faster than `Path.is_relative_to`."""
    return path.parts[: len(folder.parts)] == folder.parts


def _is_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(contains(folder, path) for folder in folders)


def _bind(path: Path) -> tuple[str, str, str]:
    return "--ro-bind", str(path), str(path)


def private_software(programs: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield what only this user may read in `/usr/local`, in other folders of PATH, and beside some programs.

    Programs that people install there themselves often have their keys beside them.
    """
    system = [path for path in map(Path, _SYSTEM) if path.is_absolute()]
    folders = {package_in_opt(Path(word)) for word in os.environ.get("PATH", os.defpath).split(os.pathsep)}
    folders |= {place.parent for program in programs for place in (program, program.resolve())}
    shown = {folder for folder in folders if not _is_in(folder, system) and folder.is_absolute()}
    for folder in _outermost([_LOCAL_SOFTWARE, *shown]):
        yield from (path for path in private_paths(folder) if os.access(path, os.R_OK))


def _outermost(folders: Iterable[Path]) -> Sequence[Path]:
    """Return the folders that lie in no other one of them."""
    found = sorted(set(folders))
    return [folder for folder in found if not any(folder != each and contains(each, folder) for each in found)]


def package_in_opt(folder: Path) -> Path:
    """Return the package in /opt that contains `folder`, or `folder` itself outside /opt."""
    if folder != _OPTIONAL_SOFTWARE and contains(_OPTIONAL_SOFTWARE, folder):
        return _OPTIONAL_SOFTWARE / folder.relative_to(_OPTIONAL_SOFTWARE).parts[0]
    return folder


@cache
def private_paths(folder: Path) -> tuple[Path, ...]:
    """Return the files and folders below `folder` that are not world-readable, without the content of such folders.

    An engine that runs as root could read them, and so could its agents.
    """
    return tuple(_private_paths(folder))


def _private_paths(folder: Path) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder)) if os.path.isdir(folder) else []
    except OSError:  # this user may not read it either, or it was removed
        return
    for entry in entries:
        with suppress(FileNotFoundError):
            if entry.is_symlink():
                continue
            if is_private(entry.stat(follow_symlinks=False).st_mode):
                yield Path(entry.path)
            elif entry.is_dir():
                yield from _private_paths(Path(entry.path))


def is_private(mode: int) -> bool:
    """Return whether a file or folder with this mode is not world-readable."""
    needed = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
    return mode & needed != needed
