"""The first step in an attempt's pod, in a container of its own.

It claims the attempt for this pod, since a cluster may start two pods for an attempt. Then it copies the inputs to
memory, where the executor can remove the secrets after reading them, and creates the tokens of the key proxy and of the
cache keeper, which run in containers beside the executor (`sidecar.py`, `cache_keeper.py`).
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from labrats.executor.egress.gateway import bind_token, require_policy
from labrats.executor.event_lines import STDOUT, EventLines
from labrats.executor.event_writer import EventWriter
from labrats.executor.inputs import read_task
from labrats.executor.model_access import TOKEN_BYTES
from labrats.executor.outcomes import run_step
from labrats.executor.secret_files import secret_files
from labrats.files.durability import sync
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import (
    BUNDLE_FILE,
    CACHE_KEEPER_FILE,
    CACHE_KEEPER_VARIABLE,
    CLAIM_FILE,
    CLAIMED_STATUS,
    EARLIER_VARIABLE,
    EGRESS_TOKEN_FILES,
    KEY_PROXY_FILE,
    KEY_PROXY_VARIABLE,
    MODEL_REQUESTS_FILE,
    PATCH_FILE,
    POD_VARIABLE,
    SESSION_FILE,
    TASK_FILE,
    Task,
)
from labrats.model.record import encode
from labrats.model.workspace_setup import Setup

_TOKENS: Final = (
    (KEY_PROXY_VARIABLE, KEY_PROXY_FILE),
    (KEY_PROXY_VARIABLE, MODEL_REQUESTS_FILE),
    (CACHE_KEEPER_VARIABLE, CACHE_KEEPER_FILE),
)
"""The names of the tokens, each with the environment variable that names the folder of the container it is for."""


def prepare(source: Path, inputs: Path, claims: Path | None = None) -> int:
    """Claim the attempt, and copy its inputs from the mounted folder `source` to `inputs`, in memory.

    First wait until the cluster's policies are in force in this pod. With a network rule, bind the tokens for the
    egress proxy to the pod: no other step passes a token on to code of others.

    claims: the attempt's folder on a volume that all its pods mount. Return the exit status.
    """
    refused = False

    async def step() -> None:
        nonlocal refused
        if refused := claims is not None and not _claim(claims):
            return
        try:
            tokens, task = {}, read_task(source)
            await require_policy(task.egress_proxy, task.policy_tests)
            if address := task.egress_proxy:
                tokens = {file.name: await bind_token(address, file.read_text()) for file in _egress_tokens(source)}
            _copy_inputs(source, inputs, tokens)
            for variable, file in _TOKENS:
                if folder := os.environ.get(variable):
                    _create_token(file, inputs, Path(folder))
        except OSError as error:
            raise GiveUp(FailedCode.INTERNAL, f"the attempt's inputs cannot be copied: {error}") from error

    status = asyncio.run(run_step(step, EventWriter(EventLines(STDOUT, None))))
    return CLAIMED_STATUS if refused else status


def _claim(folder: Path) -> bool:
    """Claim the attempt for this pod permanently. Return False if another pod has claimed it."""
    nonce = secrets.token_hex(8)
    claim, draft = f"{os.environ[POD_VARIABLE]} {nonce}", folder / f"{CLAIM_FILE}.{nonce}"
    try:
        draft.write_text(claim)
        sync(draft)
        # Unlike a rename, a link fails if the name is taken. A network volume may also report that for its own link if
        # its first answer was lost, so the content of the file decides.
        with contextlib.suppress(FileExistsError):
            os.link(draft, folder / CLAIM_FILE)
        draft.unlink()
        sync(folder)
        return (folder / CLAIM_FILE).read_text() == claim
    except OSError as error:
        raise GiveUp(FailedCode.INTERNAL, f"the attempt cannot be claimed on its volume: {error}") from error


def _egress_tokens(source: Path) -> list[Path]:
    """Return the files with tokens for the egress proxy."""
    return [file for file in secret_files(source / "secrets") if file.name in EGRESS_TOKEN_FILES]


def _copy_inputs(source: Path, inputs: Path, bound_tokens: Mapping[str, str]) -> None:
    """Copy the inputs. bound_tokens: contents of files with tokens for the egress proxy in the copy, by their names."""
    _write(inputs / TASK_FILE, encode(_without_clone(read_task(source))))
    for text in (source / "prompt", source / "instructions", source / "conversation"):
        if text.exists():
            _write(inputs / text.name, text.read_bytes())
    _copy_earlier_files(read_task(source))
    (inputs / "secrets").mkdir(mode=0o700)
    for file in secret_files(source / "secrets"):
        content = bound_tokens[file.name].encode() if file.name in bound_tokens else file.read_bytes()
        _write(inputs / "secrets" / file.name, content)


def _copy_earlier_files(task: Task) -> None:
    """Copy the stored files of an earlier attempt to the folder that the task names, for the executor."""
    places = [place.kept for place in (task.resumption, task.continuation) if place and place.kept]
    earlier = os.environ.get(EARLIER_VARIABLE)
    if earlier and places:
        Path(places[0]).mkdir(mode=0o700, exist_ok=True)
        for name in (BUNDLE_FILE, PATCH_FILE, SESSION_FILE):
            with contextlib.suppress(FileNotFoundError):
                _write(Path(places[0], name), Path(earlier, name).read_bytes())


def _create_token(file: str, inputs: Path, folder: Path) -> None:
    """Create the token of a container beside the executor: for the executor among its secrets, and in a folder."""
    token = secrets.token_urlsafe(TOKEN_BYTES).encode()
    _write(inputs / "secrets" / file, token)
    _write(folder / file, token)
    (folder / file).chmod(0o444)  # the key proxy is another user


def _without_clone(task: Task) -> Task:
    """Return the task for the executor, without the clone, which is another step."""
    setup = task.workspace_setup
    if setup is None:
        return task
    return replace(task, workspace_setup=None, repository=setup.git_repo, setup=Setup(**setup.as_fields()))


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
