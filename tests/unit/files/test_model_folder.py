"""Downloads of weights: S9 and F5 of the reliability page, against a hub that misbehaves."""

import asyncio
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.files.model_folder import BLOCK_BYTES, CHECKPOINT_BYTES, Interrupted, ModelFolder
from labrats.model.config import LOCAL_PROVIDERS
from labrats.model.model_files import FileOperation, FoundFile, Refused, Work, check_kind, check_place
from labrats.net.address_policy import Forbidden
from labrats.net.client import Malformed, OutboundClient
from tests.support.model_hub import OPEN, File, Hub, a_hub, weights
from tests.support.waiting import eventually

MIB = 2**20
SMALL = weights(3 * MIB + 17)
LARGE = weights(2 * CHECKPOINT_BYTES + 12345)


def a_folder(root: Path, *allowed: str, max_bytes: int = 2**40, **options: Any) -> ModelFolder:
    options = {"retry_seconds": (0.0, 0.0)} | options
    return ModelFolder(root, OutboundClient(allowed or [OPEN]), max_bytes, **options)


def a_download(hub: Hub, filename: str = "a.gguf", *, path: str = "", **fields: Any) -> FileOperation:
    url = fields.pop("url", hub.url(path or f"/{filename}"))
    return FileOperation(work=Work.DOWNLOAD, provider="qwen", filename=filename, url=url, **fields)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def left_in(root: Path) -> list[str]:
    """The names of all files."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def said() -> list[str]:
    """What the operations of a test have said."""
    return []


async def test_a_file_is_downloaded_checked_and_named(tmp_path: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL)) as hub:
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(SMALL)), said.append)

    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL
    assert left_in(tmp_path) == ["qwen/a.gguf"]
    assert said == ["asking 127.0.0.1", f"a.gguf is there; its SHA-256 is {sha256(SMALL)}"]


async def test_what_is_there_and_right_is_not_asked_for(tmp_path: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL)) as hub:
        for _ in range(2):
            await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(SMALL)), said.append)
        assert len(hub.requests) == 1
    assert said[-1] == "a.gguf is there already, and is what it should be"


async def test_a_file_is_invisible_until_it_is_whole(tmp_path: Path, said: list[str]) -> None:
    file = File(SMALL, hold_at=2 * MIB)
    async with a_hub(a_gguf=file) as hub, asyncio.TaskGroup() as tasks:
        tasks.create_task(a_folder(tmp_path).carry_out(a_download(hub), said.append))
        await file.holding.wait()
        assert not (tmp_path / "qwen" / "a.gguf").exists()
        assert [each.is_whole for each in a_folder(tmp_path).scan()] == [False]
        file.released.set()
    assert a_folder(tmp_path).scan() == [FoundFile(provider="qwen", filename="a.gguf", size=len(SMALL))]


async def test_another_digest_is_refused_and_replaces_nothing(tmp_path: Path, said: list[str]) -> None:
    folder = a_folder(tmp_path)
    async with a_hub(a_gguf=File(SMALL), other_gguf=File(weights(MIB, "other"))) as hub:
        await folder.carry_out(a_download(hub, sha256=sha256(SMALL)), said.append)
        with pytest.raises(Refused, match="SHA-256"):
            await folder.carry_out(a_download(hub, path="/other.gguf", sha256="0" * 64), said.append)
    assert left_in(tmp_path) == ["qwen/a.gguf"]
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL


# Going on


async def stopped_after(tmp_path: Path, hub: Hub, file: File, held: int) -> None:
    """Download until `held` bytes have been sent, and end there and then, as a kill does but for the checkpoint."""
    file.hold_at = held
    download = asyncio.create_task(a_folder(tmp_path).carry_out(a_download(hub), lambda _: None))
    await file.holding.wait()
    part = tmp_path / "qwen" / ".a.gguf.part"
    await eventually(lambda: part.exists() and part.stat().st_size >= held - BLOCK_BYTES)
    download.cancel()
    await asyncio.gather(download, return_exceptions=True)


async def test_a_stopped_download_goes_on_from_where_it_was(tmp_path: Path, said: list[str]) -> None:
    file = File(LARGE)
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(LARGE)), said.append)
        (whole, rest) = hub.requests
    assert "range" not in whole
    assert int(rest["range"].removeprefix("bytes=").removesuffix("-")) >= CHECKPOINT_BYTES
    assert rest["if-range"] == '"v1"'
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == LARGE


async def test_a_download_of_a_file_that_has_changed_begins_anew(tmp_path: Path, said: list[str]) -> None:
    file, changed = File(LARGE), weights(len(LARGE), "changed")
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        file.content, file.etag = changed, '"v2"'
        await a_folder(tmp_path).carry_out(a_download(hub), said.append)
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == changed


@pytest.mark.parametrize("etag", ["", 'W/"v1"'], ids=["none", "weak"])
async def test_without_a_sure_version_nothing_is_gone_on_with(tmp_path: Path, said: list[str], etag: str) -> None:
    file = File(LARGE, etag=etag)
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        await a_folder(tmp_path).carry_out(a_download(hub), said.append)
        assert hub.ranges() == [None, None]
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == LARGE


async def test_another_address_is_another_file(tmp_path: Path, said: list[str]) -> None:
    file = File(LARGE)
    async with a_hub(a_gguf=file, b_gguf=File(SMALL)) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        await a_folder(tmp_path).carry_out(a_download(hub, path="/b.gguf"), said.append)
        assert hub.ranges() == [None, None]
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL


async def test_what_was_not_synced_is_asked_for_again(tmp_path: Path, said: list[str]) -> None:
    """After a power cut the file may be as long as it was, and hold anything."""
    file = File(LARGE)
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES)
        with open(tmp_path / "qwen" / ".a.gguf.part", "ab") as part:
            part.write(bytes(5 * MIB))
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(LARGE)), said.append)
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == LARGE


async def test_a_connection_that_breaks_off_is_made_again(tmp_path: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL, break_at=2 * MIB)) as hub:
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(SMALL)), said.append)
        (whole, rest) = hub.ranges()
    assert (whole, bool(rest)) == (None, True)
    assert any("broke off; trying again in 0 s" in line for line in said)


async def test_what_came_before_a_break_need_not_come_again_however_little_it_was(
    tmp_path: Path, said: list[str]
) -> None:
    async with a_hub(a_gguf=File(SMALL, break_at=MIB // 2)) as hub:
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(SMALL)), said.append)
        (whole, rest) = hub.ranges()
    assert (whole, bool(rest)) == (None, True)


async def test_what_comes_slowly_is_safe_after_a_while(tmp_path: Path, said: list[str]) -> None:
    file = File(SMALL, hold_at=2 * MIB)
    async with a_hub(a_gguf=file) as hub:
        folder = a_folder(tmp_path, checkpoint_seconds=0.0)
        download = asyncio.create_task(folder.carry_out(a_download(hub), said.append))
        note = tmp_path / "qwen" / ".a.gguf.progress"
        await eventually(lambda: note.exists() and json.loads(note.read_text()).get("synced", 0) >= MIB)
        download.cancel()
        await asyncio.gather(download, return_exceptions=True)


async def test_a_file_that_has_become_shorter_is_downloaded_anew(tmp_path: Path, said: list[str]) -> None:
    file = File(LARGE)
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        file.content = SMALL  # under the same ETag
        await a_folder(tmp_path).carry_out(a_download(hub), said.append)
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL


async def test_what_was_whole_before_it_was_named_is_only_named(tmp_path: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL)) as hub:
        with pytest.raises(Refused):
            await a_folder(tmp_path).carry_out(a_download(hub, sha256="0" * 64), said.append)
        folder = tmp_path / "qwen"
        (folder / ".a.gguf.part").write_bytes(SMALL)
        note = f'{{"url":"{hub.url("/a.gguf")}","etag":"\\"v1\\"","size":{len(SMALL)},"synced":{len(SMALL)}}}'
        (folder / ".a.gguf.progress").write_text(note)
        await a_folder(tmp_path).carry_out(a_download(hub), said.append)
        assert len(hub.requests) == 1
    assert left_in(tmp_path) == ["qwen/a.gguf"]


async def test_a_hub_that_is_never_there_is_given_up(tmp_path: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(status="503 Service Unavailable")) as hub:
        with pytest.raises(Interrupted, match="answered 503, 3 times in a row"):
            await a_folder(tmp_path).carry_out(a_download(hub), said.append)
        assert len(hub.requests) == 3


# Hubs that are up to something


@pytest.mark.parametrize("status", ["404 Not Found", "401 Unauthorized", "403 Forbidden", "204 No Content"])
async def test_what_is_no_file_is_no_file(tmp_path: Path, said: list[str], status: str) -> None:
    async with a_hub(a_gguf=File(SMALL, status=status)) as hub:
        with pytest.raises(Refused, match=f"the hub answered {status[:3]}"):
            await a_folder(tmp_path).carry_out(a_download(hub), said.append)
        assert len(hub.requests) == 1
    assert left_in(tmp_path) == []


async def test_a_file_that_says_it_is_too_large_is_not_even_begun(tmp_path: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL, hold_at=0)) as hub:
        with pytest.raises(Refused, match=r"at most 2\.0 MiB are taken"):
            await a_folder(tmp_path, max_bytes=2 * MIB).carry_out(a_download(hub), said.append)
    assert left_in(tmp_path) == []


async def test_an_endless_file_is_cut_off(tmp_path: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(says_length=False, endless=True)) as hub:
        with pytest.raises(Refused, match=r"larger than 5\.0 MiB"):
            await a_folder(tmp_path, max_bytes=5 * MIB).carry_out(a_download(hub), said.append)
    assert left_in(tmp_path) == []


async def test_a_hub_that_drips_is_given_up(tmp_path: Path, said: list[str]) -> None:
    file = File(SMALL, hold_at=10)
    async with a_hub(a_gguf=file) as hub:
        with pytest.raises(Interrupted, match=r"less than 1 MiB in 0\.2 s"):
            await a_folder(tmp_path, block_seconds=0.2, retry_seconds=()).carry_out(a_download(hub), said.append)


async def test_a_file_larger_than_the_room_left_is_not_begun(tmp_path: Path, said: list[str]) -> None:
    file = File(SMALL, says_length=False)
    async with a_hub(a_gguf=file) as hub:
        file.content, file.etag = b"", f'"v1"\r\nContent-Length: {2**50}'
        with pytest.raises(Refused, match="the volume of models has"):
            await a_folder(tmp_path, max_bytes=2**60).carry_out(a_download(hub), said.append)
    assert left_in(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_disk_that_is_full_is_told_and_emptied(small_disk: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(weights(8 * MIB), says_length=False)) as hub:
        with pytest.raises(Refused, match="the volume of models is full"):
            await a_folder(small_disk).carry_out(a_download(hub), said.append)
    assert left_in(small_disk) == []


async def test_redirects_are_followed_and_judged(tmp_path: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(), b_gguf=File(SMALL), inner_gguf=File(SMALL)) as hub:
        hub.files["/a.gguf"] = File(status="302 Found", location=hub.url("/b.gguf"))
        await a_folder(tmp_path).carry_out(a_download(hub), said.append)
        assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL

        hub.requests.clear()
        hub.files["/a.gguf"].location = hub.url("/inner.gguf", host="127.0.0.2")
        with pytest.raises(Forbidden):
            await a_folder(tmp_path, "127.0.0.1/32").carry_out(a_download(hub), said.append)
        assert [request["path"] for request in hub.requests] == ["/a.gguf"]


async def test_redirects_end(tmp_path: Path, said: list[str]) -> None:
    async with a_hub(a_gguf=File(status="302 Found", location="/a.gguf")) as hub:
        with pytest.raises(Refused, match="the hub answered 302"):
            await a_folder(tmp_path).carry_out(a_download(hub), said.append)
        assert len(hub.requests) == 6


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://models.test/a", "http://user:pw@models.test/a", "a"])
async def test_an_address_of_another_kind_is_refused(tmp_path: Path, said: list[str], url: str) -> None:
    async with a_hub() as hub:
        with pytest.raises(Malformed):
            await a_folder(tmp_path).carry_out(a_download(hub, url=url), said.append)


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("a.gguf", b"\x80\x04\x95 a pickle"),
        ("a.gguf", b"<!DOCTYPE html>"),
        ("a.gguf", b'{"error": "sign in first"}'),
        ("a.gguf", b"version https://git-lfs.github.com/spec/v1"),
        ("a.safetensors", b"PK\x03\x04 a zip of pickles"),
        ("a.safetensors", b""),
    ],
)
async def test_what_is_not_what_its_name_says_is_refused(
    tmp_path: Path, said: list[str], filename: str, content: bytes
) -> None:
    async with a_hub() as hub:
        hub.files[f"/{filename}"] = File(content)
        with pytest.raises(Refused, match=f"what came as {filename} is no"):
            await a_folder(tmp_path).carry_out(a_download(hub, filename), said.append)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("filename", ["a.gguf", "a.safetensors"])
async def test_what_is_not_known_to_be_something_else_is_taken_and_doubted(
    tmp_path: Path, said: list[str], filename: str
) -> None:
    async with a_hub() as hub:
        hub.files[f"/{filename}"] = File(b"weights of a format to come")
        await a_folder(tmp_path).carry_out(a_download(hub, filename), said.append)
    assert left_in(tmp_path) == [f"qwen/{filename}"]
    assert any(f"{filename} does not begin as a" in line for line in said)


async def test_safetensors_are_known_by_their_header(tmp_path: Path, said: list[str]) -> None:
    async with a_hub() as hub:
        hub.files["/a.safetensors"] = File((2).to_bytes(8, "little") + b"{}")
        await a_folder(tmp_path).carry_out(a_download(hub, "a.safetensors"), said.append)
    assert left_in(tmp_path) == ["qwen/a.safetensors"]


# Names

ODD_NAMES = [
    *["", ".", "..", "../a.gguf", "a/../b.gguf", "/etc/a.gguf", "..\\a.gguf", "a\0.gguf", "a\n.gguf", ".a.gguf"],
    *["-rf.gguf", "a b.gguf", "%2e%2e%2fa.gguf", "．．／a.gguf", "ä.gguf", "a" * 201 + ".gguf", "~", "$HOME.gguf"],
]


@pytest.mark.parametrize("filename", ODD_NAMES)
@pytest.mark.parametrize("work", Work)
async def test_no_name_leads_anywhere(tmp_path: Path, said: list[str], work: Work, filename: str) -> None:
    (tmp_path / "a.gguf").touch()
    (tmp_path / "models" / "qwen").mkdir(parents=True)
    operation = FileOperation(work=work, provider="qwen", filename=filename, url="http://127.0.0.1:1/")
    with pytest.raises(Refused):
        await a_folder(tmp_path / "models").carry_out(operation, said.append)
    assert left_in(tmp_path) == ["a.gguf"]


@given(st.text(max_size=30))
def test_a_name_that_is_taken_is_one_component(name: str) -> None:
    try:
        check_place("qwen", name)
    except Refused:
        return
    assert Path("root", name).parent == Path("root")
    assert not name.startswith(".")


@pytest.mark.parametrize("provider", ["claude", "..", "", "qwen/../..", "Qwen"])
async def test_only_local_providers_have_files(tmp_path: Path, said: list[str], provider: str) -> None:
    operation = FileOperation(work=Work.DELETE, provider=provider, filename="a.gguf")
    with pytest.raises(Refused, match="only vllm, gemma, qwen"):
        await a_folder(tmp_path).carry_out(operation, said.append)


@pytest.mark.parametrize("filename", ["a.bin", "a.pt", "a.PTH", "a.ckpt", "a.pkl", "a.gguf.pickle", "a.npz", "a.h5"])
def test_what_may_run_code_is_refused(filename: str) -> None:
    with pytest.raises(Refused, match="may run code"):
        check_kind(filename)


@pytest.mark.parametrize("filename", ["a", "a.py", "a.zip", "a.exe", "a.gguf.sh"])
def test_what_is_not_known_to_be_data_is_refused(filename: str) -> None:
    with pytest.raises(Refused, match="nothing but data"):
        check_kind(filename)


@pytest.mark.parametrize("filename", ["m.gguf", "m.safetensors", "M.GGUF", "config.json", "merges.txt", "spiece.model"])
def test_weights_and_what_comes_with_them_are_taken(filename: str) -> None:
    check_kind(filename)


# Deleting and finding


async def test_a_deletion_takes_the_file_and_what_has_come_of_it(tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "qwen"
    folder.mkdir()
    for name in ("a.gguf", ".a.gguf.part", ".a.gguf.progress", "b.gguf"):
        (folder / name).touch()
    deletion = FileOperation(work=Work.DELETE, provider="qwen", filename="a.gguf")
    for _ in range(2):  # also one that was carried out before, by an engine that then was killed
        await a_folder(tmp_path).carry_out(deletion, said.append)
    assert left_in(tmp_path) == ["qwen/b.gguf"]


def test_a_scan_finds_files_of_local_providers(tmp_path: Path) -> None:
    for provider in (*LOCAL_PROVIDERS, "claude", ".operations"):
        (tmp_path / provider / "folder").mkdir(parents=True)
        (tmp_path / provider / "a.gguf").write_bytes(b"123")
    (tmp_path / "vllm" / "link.gguf").symlink_to("/etc/passwd")
    (tmp_path / "gemma" / ".b.gguf.part").write_bytes(b"1")

    found = {(each.provider, each.filename, each.size, each.is_whole) for each in a_folder(tmp_path).scan()}

    assert found == {
        *((provider, "a.gguf", 3, True) for provider in LOCAL_PROVIDERS),
        ("gemma", "b.gguf", 1, False),
    }
    assert a_folder(tmp_path / "nowhere").scan() == []
