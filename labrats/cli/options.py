"""The options that several commands share, and their defaults."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Group, Parameter

from labrats.cli.credentials import ClientCredential, find_credential, port_of_running_engine

if TYPE_CHECKING:
    from labrats.cli.client import Client

ENGINE_OPTIONS: Final = Group("Engine", sort_key=100)

DataDir = Annotated[Path | None, Parameter(env_var="LABRATS_DATA_DIR", group=ENGINE_OPTIONS)]
Json = Annotated[bool, Parameter(negative=(), show_default=False, group=ENGINE_OPTIONS)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ApiOptions:
    """Options of every command that calls the engine's API."""

    url: Annotated[str | None, Parameter(env_var="LABRATS_URL", metavar="URL", group=ENGINE_OPTIONS)] = None
    """The URL of the engine. Default: that of the engine on the data folder, or http://127.0.0.1:3001."""
    api_key: Annotated[str | None, Parameter(env_var="LABRATS_API_KEY", metavar="KEY", group=ENGINE_OPTIONS)] = None
    """The API key. Default for an engine on this machine: the admin key in its data folder."""
    data_dir: DataDir = None
    """The data folder of an engine on this machine. Default: ~/.local/share/labrats."""
    json: Json = False
    """Print the JSON of the API, unchanged."""

    @property
    def base_url(self) -> str:
        port = None if self.url else port_of_running_engine(self.data_dir) or os.environ.get("PORT") or 3001
        url = self.url or f"http://127.0.0.1:{port}"
        return url if "://" in url else f"http://{url}"

    def credential(self) -> ClientCredential:
        """Return the key for requests. Raises CommandError when this user may not read the admin key."""
        return find_credential(self.base_url, self.api_key, self.data_dir)

    def connect(self) -> "Client":
        """Open a client of the engine that these options name."""
        from labrats.cli.client import Client  # httpx2 takes 0.1 s to import

        return Client(self.base_url, self.credential())


DEFAULTS: Final = ApiOptions()
