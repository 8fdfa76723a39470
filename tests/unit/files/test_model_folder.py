"""Downloads of model files from a hub that misbehaves."""

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

from labrats.files.model_folder import BLOCK_BYTES, CHECKPOINT_BYTES, DownloadInterrupted, ModelFolder, progress_in
from labrats.model.model_files import (
    DownloadProgress,
    FileOperation,
    FoundFile,
    ModelFileError,
    OperationType,
    check_file_name,
    check_file_type,
)
from labrats.model.provider_spec import LOCAL_PROVIDERS
from labrats.net.address_policy import Forbidden
from labrats.net.client import InvalidUrl, OutboundClient
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
    return FileOperation(work=OperationType.DOWNLOAD, provider="qwen", filename=filename, url=url, **fields)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def left_in(root: Path) -> list[str]:
    """Return the relative paths of all files."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def log() -> list[str]:
    """The log lines of a test's operations."""
    return []


async def test_a_file_is_downloaded_verified_and_named(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL)) as hub:
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(SMALL)), log.append)

    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL
    assert left_in(tmp_path) == ["qwen/a.gguf"]
    assert log == ["requesting 127.0.0.1", "0.0 MiB of 3.0 MiB", f"a.gguf downloaded; its SHA-256 is {sha256(SMALL)}"]


async def test_a_file_with_the_expected_digest_is_not_requested_again(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL)) as hub:
        for _ in range(2):
            await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(SMALL)), log.append)
        assert len(hub.requests) == 1
    assert log[-1] == "a.gguf already downloaded with the expected SHA-256"


async def test_a_file_is_invisible_until_it_is_complete(tmp_path: Path, log: list[str]) -> None:
    file = File(SMALL, hold_at=2 * MIB)
    async with a_hub(a_gguf=file) as hub, asyncio.TaskGroup() as tasks:
        tasks.create_task(a_folder(tmp_path).carry_out(a_download(hub), log.append))
        await file.holding.wait()
        assert not (tmp_path / "qwen" / "a.gguf").exists()
        assert [each.is_whole for each in a_folder(tmp_path).scan()] == [False]
        file.released.set()
    assert a_folder(tmp_path).scan() == [FoundFile(provider="qwen", filename="a.gguf", size=len(SMALL))]


async def test_a_file_with_another_digest_is_refused_and_replaces_nothing(tmp_path: Path, log: list[str]) -> None:
    folder = a_folder(tmp_path)
    async with a_hub(a_gguf=File(SMALL), other_gguf=File(weights(MIB, "other"))) as hub:
        await folder.carry_out(a_download(hub, sha256=sha256(SMALL)), log.append)
        with pytest.raises(ModelFileError, match="SHA-256"):
            await folder.carry_out(a_download(hub, path="/other.gguf", sha256="0" * 64), log.append)
    assert left_in(tmp_path) == ["qwen/a.gguf"]
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL


# Resuming


async def stopped_after(tmp_path: Path, hub: Hub, file: File, held: int) -> None:
    """Download until `held` bytes have been sent, then cancel. Unlike a kill, that writes a checkpoint."""
    file.hold_at = held
    download = asyncio.create_task(a_folder(tmp_path).carry_out(a_download(hub), lambda _: None))
    await file.holding.wait()
    part = tmp_path / "qwen" / ".a.gguf.part"
    await eventually(lambda: part.exists() and part.stat().st_size >= held - BLOCK_BYTES)
    download.cancel()
    await asyncio.gather(download, return_exceptions=True)


async def test_a_stopped_download_resumes_from_its_checkpoint(tmp_path: Path, log: list[str]) -> None:
    file = File(LARGE)
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(LARGE)), log.append)
        (whole, rest) = hub.requests
    assert "range" not in whole
    assert int(rest["range"].removeprefix("bytes=").removesuffix("-")) >= CHECKPOINT_BYTES
    assert rest["if-range"] == '"v1"'
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == LARGE


async def test_a_download_of_a_changed_file_starts_over(tmp_path: Path, log: list[str]) -> None:
    file, changed = File(LARGE), weights(len(LARGE), "changed")
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        file.content, file.etag = changed, '"v2"'
        await a_folder(tmp_path).carry_out(a_download(hub), log.append)
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == changed


@pytest.mark.parametrize("etag", ["", 'W/"v1"'], ids=["none", "weak"])
async def test_a_download_without_a_strong_etag_starts_over(tmp_path: Path, log: list[str], etag: str) -> None:
    file = File(LARGE, etag=etag)
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        await a_folder(tmp_path).carry_out(a_download(hub), log.append)
        assert hub.ranges() == [None, None]
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == LARGE


async def test_a_download_from_another_url_starts_over(tmp_path: Path, log: list[str]) -> None:
    file = File(LARGE)
    async with a_hub(a_gguf=file, b_gguf=File(SMALL)) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        await a_folder(tmp_path).carry_out(a_download(hub, path="/b.gguf"), log.append)
        assert hub.ranges() == [None, None]
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL


async def test_unsynced_data_is_requested_again(tmp_path: Path, log: list[str]) -> None:
    """After a power cut, a file may have its full length and arbitrary content."""
    file = File(LARGE)
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES)
        with open(tmp_path / "qwen" / ".a.gguf.part", "ab") as part:
            part.write(bytes(5 * MIB))
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(LARGE)), log.append)
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == LARGE


async def test_an_interrupted_download_is_retried(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL, break_at=2 * MIB)) as hub:
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(SMALL)), log.append)
        (whole, rest) = hub.ranges()
    assert (whole, bool(rest)) == (None, True)
    assert any("interrupted; retrying in 0 s" in line for line in log)


async def test_data_received_before_an_interruption_is_not_requested_again(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL, break_at=MIB // 2)) as hub:
        await a_folder(tmp_path).carry_out(a_download(hub, sha256=sha256(SMALL)), log.append)
        (whole, rest) = hub.ranges()
    assert (whole, bool(rest)) == (None, True)


async def test_a_part_of_the_requested_range_is_not_taken_for_the_rest_of_the_file(
    tmp_path: Path, log: list[str]
) -> None:
    async with a_hub(a_gguf=File(SMALL, break_at=MIB, most_range=MIB)) as hub:
        await a_folder(tmp_path).carry_out(a_download(hub), log.append)
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL
    assert len(hub.requests) == 4


async def test_a_slow_download_is_synced_after_a_while(tmp_path: Path, log: list[str]) -> None:
    file = File(SMALL, hold_at=2 * MIB)
    async with a_hub(a_gguf=file) as hub:
        folder = a_folder(tmp_path, checkpoint_seconds=0.0)
        download = asyncio.create_task(folder.carry_out(a_download(hub), log.append))
        note = tmp_path / "qwen" / ".a.gguf.progress"
        await eventually(lambda: note.exists() and json.loads(note.read_text()).get("synced", 0) >= MIB)
        download.cancel()
        await asyncio.gather(download, return_exceptions=True)


async def test_a_download_of_a_shortened_file_starts_over(tmp_path: Path, log: list[str]) -> None:
    file = File(LARGE)
    async with a_hub(a_gguf=file) as hub:
        await stopped_after(tmp_path, hub, file, CHECKPOINT_BYTES + 2 * MIB)
        file.content = SMALL  # under the same ETag
        await a_folder(tmp_path).carry_out(a_download(hub), log.append)
    assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL


async def test_a_complete_partial_file_is_renamed_without_a_request(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL)) as hub:
        with pytest.raises(ModelFileError):
            await a_folder(tmp_path).carry_out(a_download(hub, sha256="0" * 64), log.append)
        folder = tmp_path / "qwen"
        (folder / ".a.gguf.part").write_bytes(SMALL)
        note = f'{{"url":"{hub.url("/a.gguf")}","etag":"\\"v1\\"","size":{len(SMALL)},"synced":{len(SMALL)}}}'
        (folder / ".a.gguf.progress").write_text(note)
        await a_folder(tmp_path).carry_out(a_download(hub), log.append)
        assert len(hub.requests) == 1
    assert left_in(tmp_path) == ["qwen/a.gguf"]


async def test_an_unavailable_hub_is_given_up_after_retries(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(status="503 Service Unavailable")) as hub:
        with pytest.raises(DownloadInterrupted, match="answered 503; gave up after 3 attempts"):
            await a_folder(tmp_path).carry_out(a_download(hub), log.append)
        assert len(hub.requests) == 3


# Hubs that misbehave


@pytest.mark.parametrize("status", ["404 Not Found", "401 Unauthorized", "403 Forbidden", "204 No Content"])
async def test_an_answer_without_a_file_fails_at_once(tmp_path: Path, log: list[str], status: str) -> None:
    async with a_hub(a_gguf=File(SMALL, status=status)) as hub:
        with pytest.raises(ModelFileError, match=f"the hub answered {status[:3]}"):
            await a_folder(tmp_path).carry_out(a_download(hub), log.append)
        assert len(hub.requests) == 1
    assert left_in(tmp_path) == []


async def test_a_file_above_the_limit_is_not_downloaded(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(SMALL, hold_at=0)) as hub:
        with pytest.raises(ModelFileError, match=r"the limit is 2\.0 MiB"):
            await a_folder(tmp_path, max_bytes=2 * MIB).carry_out(a_download(hub), log.append)
    assert left_in(tmp_path) == []


async def test_an_endless_file_stops_at_the_limit(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(says_length=False, endless=True)) as hub:
        with pytest.raises(ModelFileError, match=r"larger than the limit of 5\.0 MiB"):
            await a_folder(tmp_path, max_bytes=5 * MIB).carry_out(a_download(hub), log.append)
    assert left_in(tmp_path) == []


async def test_a_slow_hub_is_given_up(tmp_path: Path, log: list[str]) -> None:
    file = File(SMALL, hold_at=10)
    async with a_hub(a_gguf=file) as hub:
        with pytest.raises(DownloadInterrupted, match=r"less than 1 MiB in 0\.2 s"):
            await a_folder(tmp_path, block_seconds=0.2, retry_seconds=()).carry_out(a_download(hub), log.append)


async def test_a_file_larger_than_the_free_space_is_not_downloaded(tmp_path: Path, log: list[str]) -> None:
    file = File(SMALL, says_length=False)
    async with a_hub(a_gguf=file) as hub:
        file.content, file.etag = b"", f'"v1"\r\nContent-Length: {2**50}'
        with pytest.raises(ModelFileError, match="the models volume has"):
            await a_folder(tmp_path, max_bytes=2**60).carry_out(a_download(hub), log.append)
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


async def test_a_full_disk_fails_the_download_and_deletes_the_partial_file(small_disk: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(weights(8 * MIB), says_length=False)) as hub:
        with pytest.raises(ModelFileError, match="the models volume is full"):
            await a_folder(small_disk).carry_out(a_download(hub), log.append)
    assert left_in(small_disk) == []


async def test_redirects_are_followed_to_allowed_addresses_only(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(), b_gguf=File(SMALL), inner_gguf=File(SMALL)) as hub:
        hub.files["/a.gguf"] = File(status="302 Found", location=hub.url("/b.gguf"))
        await a_folder(tmp_path).carry_out(a_download(hub), log.append)
        assert (tmp_path / "qwen" / "a.gguf").read_bytes() == SMALL

        hub.requests.clear()
        hub.files["/a.gguf"].location = hub.url("/inner.gguf", host="127.0.0.2")
        with pytest.raises(Forbidden):
            await a_folder(tmp_path, "127.0.0.1/32").carry_out(a_download(hub), log.append)
        assert [request["path"] for request in hub.requests] == ["/a.gguf"]


async def test_endless_redirects_fail(tmp_path: Path, log: list[str]) -> None:
    async with a_hub(a_gguf=File(status="302 Found", location="/a.gguf")) as hub:
        with pytest.raises(ModelFileError, match="the hub answered 302"):
            await a_folder(tmp_path).carry_out(a_download(hub), log.append)
        assert len(hub.requests) == 6


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://models.test/a", "http://user:pw@models.test/a", "a"])
async def test_an_invalid_url_is_refused(tmp_path: Path, log: list[str], url: str) -> None:
    async with a_hub() as hub:
        with pytest.raises(InvalidUrl):
            await a_folder(tmp_path).carry_out(a_download(hub, url=url), log.append)


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
async def test_a_file_of_another_format_than_its_suffix_is_refused(
    tmp_path: Path, log: list[str], filename: str, content: bytes
) -> None:
    async with a_hub() as hub:
        hub.files[f"/{filename}"] = File(content)
        with pytest.raises(ModelFileError, match=f"{filename} is not a"):
            await a_folder(tmp_path).carry_out(a_download(hub, filename), log.append)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("filename", ["a.gguf", "a.safetensors"])
async def test_a_file_of_unknown_format_is_accepted_with_a_warning(
    tmp_path: Path, log: list[str], filename: str
) -> None:
    async with a_hub() as hub:
        hub.files[f"/{filename}"] = File(b"weights of a format to come")
        await a_folder(tmp_path).carry_out(a_download(hub, filename), log.append)
    assert left_in(tmp_path) == [f"qwen/{filename}"]
    assert any(f"{filename} does not begin like a" in line for line in log)


async def test_safetensors_are_recognised_by_their_header(tmp_path: Path, log: list[str]) -> None:
    async with a_hub() as hub:
        hub.files["/a.safetensors"] = File((2).to_bytes(8, "little") + b"{}")
        await a_folder(tmp_path).carry_out(a_download(hub, "a.safetensors"), log.append)
    assert left_in(tmp_path) == ["qwen/a.safetensors"]


# Names

ODD_NAMES = [
    *["", ".", "..", "../a.gguf", "a/../b.gguf", "/etc/a.gguf", "..\\a.gguf", "a\0.gguf", "a\n.gguf", ".a.gguf"],
    *["-rf.gguf", "a b.gguf", "%2e%2e%2fa.gguf", "．．／a.gguf", "ä.gguf", "a" * 201 + ".gguf", "~", "$HOME.gguf"],
]


@pytest.mark.parametrize("filename", ODD_NAMES)
@pytest.mark.parametrize("work", OperationType)
async def test_no_name_leads_outside_the_folder(
    tmp_path: Path, log: list[str], work: OperationType, filename: str
) -> None:
    (tmp_path / "a.gguf").touch()
    (tmp_path / "models" / "qwen").mkdir(parents=True)
    operation = FileOperation(work=work, provider="qwen", filename=filename, url="http://127.0.0.1:1/")
    with pytest.raises(ModelFileError):
        await a_folder(tmp_path / "models").carry_out(operation, log.append)
    assert left_in(tmp_path) == ["a.gguf"]


@given(st.text(max_size=30))
def test_an_accepted_name_is_one_path_component(name: str) -> None:
    try:
        check_file_name("qwen", name)
    except ModelFileError:
        return
    assert Path("root", name).parent == Path("root")
    assert not name.startswith(".")


@pytest.mark.parametrize("provider", ["claude", "..", "", "qwen/../..", "Qwen"])
async def test_only_local_providers_have_files(tmp_path: Path, log: list[str], provider: str) -> None:
    operation = FileOperation(work=OperationType.DELETE, provider=provider, filename="a.gguf")
    with pytest.raises(ModelFileError, match="must be one of openai, vllm, gemma, qwen"):
        await a_folder(tmp_path).carry_out(operation, log.append)


@pytest.mark.parametrize("filename", ["a.bin", "a.pt", "a.PTH", "a.ckpt", "a.pkl", "a.gguf.pickle", "a.npz", "a.h5"])
def test_files_that_may_run_code_are_refused(filename: str) -> None:
    with pytest.raises(ModelFileError, match="may run code"):
        check_file_type(filename)


@pytest.mark.parametrize("filename", ["a", "a.py", "a.zip", "a.exe", "a.gguf.sh"])
def test_files_of_unknown_types_are_refused(filename: str) -> None:
    with pytest.raises(ModelFileError, match="nothing but data"):
        check_file_type(filename)


@pytest.mark.parametrize("filename", ["m.gguf", "m.safetensors", "M.GGUF", "config.json", "merges.txt", "spiece.model"])
def test_weights_and_their_companions_are_accepted(filename: str) -> None:
    check_file_type(filename)


# Deleting and finding


async def test_a_deletion_removes_the_file_and_its_partial_download(tmp_path: Path, log: list[str]) -> None:
    folder = tmp_path / "qwen"
    folder.mkdir()
    for name in ("a.gguf", ".a.gguf.part", ".a.gguf.progress", "b.gguf"):
        (folder / name).touch()
    deletion = FileOperation(work=OperationType.DELETE, provider="qwen", filename="a.gguf")
    for _ in range(2):  # the second repeats a deletion that a killed engine had carried out
        await a_folder(tmp_path).carry_out(deletion, log.append)
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


async def test_progress_is_read_from_the_folder_and_from_the_log(tmp_path: Path, log: list[str]) -> None:
    file, folder = File(SMALL, hold_at=2 * MIB), a_folder(tmp_path)
    async with a_hub(a_gguf=file) as hub, asyncio.TaskGroup() as tasks:
        operation = a_download(hub)
        assert folder.progress_of(operation) is None
        tasks.create_task(folder.carry_out(operation, lambda line: log.append(f"2030-01-01T12:00:00Z {line}")))
        await eventually(lambda: (found := folder.progress_of(operation)) is not None and found.received_bytes >= MIB)
        found = folder.progress_of(operation)
        assert found
        assert (found.received_bytes <= 2 * MIB, found.total_bytes) == (True, len(SMALL))
        assert progress_in(log[:1]) is None
        assert progress_in(log) == DownloadProgress(received_bytes=0, total_bytes=3 * MIB)
        file.released.set()
    assert folder.progress_of(operation) is None
    assert progress_in(["2030-01-01T12:00:00Z 1.5 MiB"]) == DownloadProgress(received_bytes=3 * MIB // 2)
