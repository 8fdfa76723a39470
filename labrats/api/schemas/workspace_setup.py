"""The preparation of a workspace before the agent starts: commands, and folders that jobs share."""

from typing import Annotated, Any

from msgspec import to_builtins
from pydantic import Field, StringConstraints

from labrats.api.schemas.base import RequestBody, ResponseBody, optional
from labrats.api.schemas.network import NetworkBody, NetworkView, network_rule
from labrats.api.schemas.patterns import NO_NUL
from labrats.model.workspace_setup import (
    LONGEST_SETUP_MS,
    LONGEST_WORD,
    MOST_CACHES,
    MOST_COMMANDS,
    MOST_WORDS,
    CachedFolder,
    Setup,
)

_Word = Annotated[str, StringConstraints(max_length=LONGEST_WORD, pattern=NO_NUL)]
_Path = Annotated[str, StringConstraints(min_length=1, max_length=500)]
_COMMANDS = [["npm", "ci"]]


class CachedFolderBody(RequestBody):
    """A folder that later jobs get as it was after the commands, while a file has the same content."""

    key: _Path = Field(description="The file, relative to the workspace.", examples=["package-lock.json"])
    path: _Path = Field(description="The folder, relative to the workspace.", examples=["node_modules"])


class SetupBody(RequestBody):
    """The preparation of the workspace of a job with a repository."""

    setup: (
        Annotated[
            list[Annotated[list[_Word], Field(min_length=1, max_length=MOST_WORDS)]], Field(max_length=MOST_COMMANDS)
        ]
        | None
    ) = Field(
        default=None,
        description="Commands to run before the agent starts, each the list of a program and its arguments. The job "
        "fails with the code `setup` if one fails.",
        examples=[_COMMANDS],
    )
    setup_timeout_ms: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_SETUP_MS,
        description="Milliseconds for all commands together. Default: 10 minutes.",
    )
    setup_network: NetworkBody | None = Field(
        default=None, description="The network rule of the commands. Default: that of the agent."
    )
    cache: Annotated[list[CachedFolderBody], Field(max_length=MOST_CACHES)] | None = Field(
        default=None,
        description="Folders that the commands fill. Jobs of one repository, one owner and one trust level share them.",
    )


def setup_of(body: SetupBody) -> Setup:
    """Return what the request sets, in the engine's form."""
    return Setup(
        setup=None if body.setup is None else tuple(map(tuple, body.setup)),
        setup_timeout_ms=body.setup_timeout_ms,
        setup_network=None if body.setup_network is None else network_rule(body.setup_network),
        cache=None if body.cache is None else tuple(CachedFolder(key=each.key, path=each.path) for each in body.cache),
    )


class CachedFolderView(ResponseBody):
    """A folder that later jobs get as it was after the commands, while a file has the same content."""

    key: str = Field(examples=["package-lock.json"])
    path: str = Field(examples=["node_modules"])


class SetupView(ResponseBody):
    """The preparation of the workspace. Values that are not set are absent."""

    setup: list[list[str]] = optional(
        description="Commands, each the list of a program and its arguments.", examples=[_COMMANDS]
    )
    setup_timeout_ms: int = optional(description="Milliseconds for all commands together.", examples=[600_000])
    setup_network: NetworkView = optional(description="The network rule of the commands.")
    cache: list[CachedFolderView] = optional(description="Folders that the commands fill.")


def setup_view(setup: Setup) -> dict[str, Any]:
    """Return the API's form of what a job or an agent sets."""
    view: dict[str, Any] = to_builtins(Setup(**setup.as_fields()))
    return view
