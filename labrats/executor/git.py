"""Clones a repository that somebody else chose, on credentials that must not stay behind.

The repository is data: nothing in it is run, and nothing of this machine's git configuration applies. Its address is
judged, and git is held to what was judged.
"""

import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from labrats import outbound
from labrats.executor.child import child_process, tail_of
from labrats.executor.run import Run
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, WorkspaceSetup

_OLDEST_GIT: Final = (2, 37)
"""The first with http.curloptResolve, without which git would look the name up again and might get another address."""

_PORTS: Final[Mapping[str, int]] = {"https": 443, "http": 80, "ssh": 22}
_HOST: Final = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|[0-9a-f.]*:[0-9a-f.:]+", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_PATH: Final = re.compile(r"/[!-~]+")
_SCP_FORM: Final = re.compile(r"(?P<authority>[^:/]+):(?P<path>[^:].*)")
_REF: Final = re.compile(r"(?![-/])(?!.*(?:\.\.|@\{))[^\x00-\x20\x7f~^:?*\[\\]+")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII | re.IGNORECASE)
_SHORT_COMMIT: Final = re.compile(r"[0-9a-f]{7,39}", re.ASCII | re.IGNORECASE)

_CONFIG: Final[Mapping[str, str]] = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "http.followRedirects": "false",  # where they lead was not judged
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
}
_SSH_OPTIONS: Final = (
    "-F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=30 -o ServerAliveInterval=15"
)
_ASKPASS: Final = """#!/bin/sh
case "$1" in
Username*) cat "${0%/*}/username" ;;
*) cat "${0%/*}/password" ;;
esac
"""

_REASONS: Final = (
    # What git says (in the C locale), and what it means. The first that matches wins.
    (r"Remote branch .* not found|couldn't find remote ref|not our ref|unadvertised object|unable to read tree"
     r"|reference is not a tree|did not match any file|unable to find remote helper", "ref"),
)


@dataclass(frozen=True)
class Remote:
    """A repository's address without any credential. host and port are None for a local path."""

    url: str
    transport: str
    host: str | None = None
    port: int | None = None


def parse_remote(address: str, repo_roots: Sequence[str] = ()) -> Remote:
    """Reads an https, http, ssh or scp-like address, or a local path below one of `repo_roots`.

    The URL is put together anew, so that git reads in it what was judged here. Raises GiveUp for anything else.
    """
    if address.startswith("/"):
        return _local_remote(address, repo_roots)
    if "://" not in address and (scp := _SCP_FORM.fullmatch(address)):
        path = scp["path"] if scp["path"].startswith("/") else f"/~/{scp['path']}"
        ...
