"""The API key that a command sends to the engine."""

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from labrats.cli.errors import CommandError, ExitCode

_LOCK: Final = "engine.lock"


@dataclass(frozen=True)
class ClientCredential:
    """An API key and its origin. The error message about a refused key names the origin.

    lock: the file in the data folder with the key that the engine locks while it runs, and in which it has its port.
    """

    key: str | None
    origin: str
    lock: Path | None = None

    def reason_not_to_send(self, base_url: str) -> str | None:
        """Return why the key must not be sent to a URL, as a sentence; None if it may.

        Another program may listen on the port of an engine that does not run, or on another port, also an agent of a
        running job. It would get the key.
        """
        if self.lock is None:
            return None
        if _is_unlocked(self.lock):
            return f"no engine runs on {self.lock.parent}, so its admin key is not sent to {base_url}"
        port = _recorded_port(self.lock)
        if port is None or port == _port_of(base_url):
            return None
        return f"the engine of {self.lock.parent} listens on port {port}, so its admin key is not sent to {base_url}"


def port_of_running_engine(data_dir: Path | None) -> int | None:
    """Return the port of the engine that runs on a data folder of this machine; None without one."""
    lock = (data_dir or default_data_dir()) / _LOCK
    return None if _is_unlocked(lock) else _recorded_port(lock)


def _is_unlocked(lock: Path) -> bool:
    try:
        import fcntl  # Windows, where no engine runs, has none
    except ImportError:
        return True
    try:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an engine on Kubernetes shares the lock
    except OSError:  # an engine holds the lock, or it is unknown: there is no such file, or no locks
        return False
    return True


def _recorded_port(lock: Path) -> int | None:
    """Return the port in the lock file. That of an engine of version 0.1 has none."""
    try:
        text = lock.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _port_of(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None


def find_credential(base_url: str, api_key: str | None, data_dir: Path | None) -> ClientCredential:
    """Return `api_key` or, for an engine on this machine, the admin key in its data folder.

    The admin key is never sent to another machine. Raises CommandError when this user may not read it.
    """
    if api_key:
        return ClientCredential(api_key, "--api-key or LABRATS_API_KEY")
    if not is_this_machine(base_url):
        return ClientCredential(None, "no key, because the admin key is sent to an engine on this machine only")
    path = (data_dir or default_data_dir()) / "admin.key"
    try:
        return ClientCredential(path.read_text().strip(), str(path), path.with_name(_LOCK))
    except (FileNotFoundError, NotADirectoryError):
        return ClientCredential(None, f"no key, because there is no {path}")
    except PermissionError as error:
        from labrats.files.foreign_folder import problem_of_foreign_folder  # most commands do not need it

        problem = problem_of_foreign_folder(path.parent) or f"only the owner of {path} may use the admin key"
        sentence = f"{problem}; or pass an API key with --api-key or LABRATS_API_KEY"
        raise CommandError(sentence, ExitCode.REFUSED) from error


def default_data_dir() -> Path:
    """Return the same folder as `labrats.settings.default_data_dir`, whose module takes 0.25 s to import."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "labrats"


def is_this_machine(url: str) -> bool:
    """Return whether the host of `url` is localhost, a loopback address or the unspecified address."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:  # a host name, or an invalid address
        return False
