"""The options that commands share, and what they default to."""

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from cyclopts import Group, Parameter

from labrats.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from labrats.cli.client import Client

ENGINE_OPTIONS: Final = Group("Engine", sort_key=100)

DataDir = Annotated[Path | None, Parameter(env_var="LABRATS_DATA_DIR", group=ENGINE_OPTIONS)]
Json = Annotated[bool, Parameter(negative=(), show_default=False, group=ENGINE_OPTIONS)]


@dataclass(frozen=True)
class Credential:
    """An API key, and where it was found, for the message when the engine refuses it."""

    key: str | None
    origin: str


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ApiOptions:
    """What every command that asks the engine can be told."""

    url: Annotated[str | None, Parameter(env_var="LABRATS_URL", metavar="URL", group=ENGINE_OPTIONS)] = None
    """Where the engine is. Default: http://127.0.0.1:3001, or the port in PORT."""
    api_key: Annotated[str | None, Parameter(env_var="LABRATS_API_KEY", metavar="KEY", group=ENGINE_OPTIONS)] = None
    """The API key. Default, for an engine on this machine: the admin key in its data folder."""
    data_dir: DataDir = None
    """The data folder of an engine on this machine. Default: ~/.local/share/labrats."""
    json: Json = False
    """Print the API's JSON, unchanged."""

    @property
    def base_url(self) -> str:
        url = self.url or f"http://127.0.0.1:{os.environ.get('PORT') or 3001}"
        return url if "://" in url else f"http://{url}"

    def credential(self) -> Credential:
        """The key to call with. Raises CommandError when the admin key is there but not ours to read."""
        if self.api_key:
            return Credential(self.api_key, "--api-key or LABRATS_API_KEY")
        if not is_this_machine(self.base_url):  # the admin key of this machine's engine is nobody else's business
            return Credential(None, "no key, because the admin key is sent to an engine on this machine only")
        path = (self.data_dir or default_data_dir()) / "admin.key"
        try:
            return Credential(path.read_text().strip(), str(path))
        except (FileNotFoundError, NotADirectoryError):
            return Credential(None, f"no key, because there is no {path}")
        except PermissionError as error:
            sentence = f"only the owner of {path} may use the admin key; give another with --api-key"
            raise CommandError(sentence, ExitCode.REFUSED) from error

    def connect(self) -> "Client":
        from labrats.cli.client import Client  # httpx2 takes 0.1 s to import

        return Client(self.base_url, self.credential())


DEFAULTS: Final = ApiOptions()


def default_data_dir() -> Path:
    """As `labrats.settings.default_data_dir`, which takes a quarter of a second to import."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "labrats"


def is_this_machine(url: str) -> bool:
    """Whether `url` leads to loopback, or to the address that means all of this machine's."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:  # a name, or no address at all
        return False
