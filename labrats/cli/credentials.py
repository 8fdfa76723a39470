"""The API key that a command sends to the engine."""

import fcntl
import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from labrats.cli.errors import CommandError, ExitCode


@dataclass(frozen=True)
class ClientCredential:
    """An API key and its origin. The error message about a refused key names the origin.

    lock: the file in the data folder with the key that the engine locks while it runs.
    """

    key: str | None
    origin: str
    lock: Path | None = None

    def is_of_stopped_engine(self) -> bool:
        """Return whether the key is that of an engine that does not run.

        Another program may listen on its port in the meantime, also an agent of a running job, and would get the key.
        """
        if self.lock is None:
            return False
        try:
            with open(self.lock) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an engine on Kubernetes shares the lock
        except OSError:  # an engine holds the lock, or it is unknown: there is no such file, or no locks
            return False
        return True


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
        return ClientCredential(path.read_text().strip(), str(path), path.with_name("engine.lock"))
    except (FileNotFoundError, NotADirectoryError):
        return ClientCredential(None, f"no key, because there is no {path}")
    except PermissionError as error:
        sentence = f"only the owner of {path} may use the admin key; give another with --api-key"
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
