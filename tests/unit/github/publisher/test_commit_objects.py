"""Commits of an agent are rewritten with harmless messages and signatures, and always get the same new ids."""

import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from labrats.github.client.signer import CannotSign, Signer
from labrats.github.publisher.commit_objects import CommitObject, rewrite_commits

COMMITTER = "Ada Example <ada@example.com>"


def run_git(folder: Path, arguments: Sequence[str], *, stdin: bytes = b"") -> bytes:
    identity = ["-c", "user.name=Agent", "-c", "user.email=agent@example.com"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, input=stdin, check=True, capture_output=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    run_git(tmp_path, ["init", "--quiet", "--initial-branch=main"])
    commit(tmp_path, "Start")
    return tmp_path


def commit(repository: Path, message: str) -> str:
    run_git(repository, ["commit", "--quiet", "--allow-empty", "--message", message])
    return head_of(repository)


def head_of(repository: Path) -> str:
    return run_git(repository, ["rev-parse", "HEAD"]).decode().strip()


def neutralised(repository: Path, base: str, signer: Signer | None = None) -> dict[str, str]:
    return rewrite_commits(partial(run_git, repository), f"{base}..HEAD", (), signer)


def signer_of(folder: Path, kind: str = "ed25519", passphrase: str = "", committer: str = COMMITTER) -> Signer:
    """Return a signer with a new key, which git accepts in `repository`."""
    key = folder / ".git" / "test-key"
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    signers = folder / ".git" / "signers"
    signers.write_text(f"ada@example.com {key.with_suffix('.pub').read_text()}")
    run_git(folder, ["config", "gpg.ssh.allowedSignersFile", str(signers)])
    signer = Signer.of({"signingKey": key.read_text(), "committer": committer})
    assert signer
    return signer


def messages_of(repository: Path, tip: str) -> list[str]:
    return run_git(repository, ["log", "--format=%s", tip]).decode().splitlines()


def test_commits_without_active_parts_stay_as_they_are(repository: Path) -> None:
    base = head_of(repository)
    commit(repository, "Fix it\n\nCo-Authored-By: Octo <octo@example.com>")
    assert neutralised(repository, base) == {}


def test_an_active_message_changes_its_commit_and_those_after_it(repository: Path) -> None:
    base = head_of(repository)
    first, second, third = (commit(repository, message) for message in ("Add it", "Fixes #9", "Test it"))
    written = neutralised(repository, base)
    assert written.keys() == {second, third}
    assert messages_of(repository, written[third]) == ["Test it", "Fixes \u200b#\u200b9", "Add it", "Start"]
    assert run_git(repository, ["rev-parse", f"{written[third]}~2"]).decode().strip() == first
    assert neutralised(repository, base) == written


def test_both_sides_of_a_merge_are_rewritten(repository: Path) -> None:
    base = head_of(repository)
    run_git(repository, ["checkout", "--quiet", "-b", "side"])
    commit(repository, "Ask @octo")
    run_git(repository, ["checkout", "--quiet", "main"])
    commit(repository, "Closes #9")
    run_git(repository, ["merge", "--quiet", "--no-ff", "--message", "Merge it", "side"])
    tip = neutralised(repository, base)[head_of(repository)]
    assert {*messages_of(repository, tip)} == {"Merge it", "Ask @\u200bocto", "Closes \u200b#\u200b9", "Start"}


def signed_by_the_agent(repository: Path, message: str) -> tuple[bytes, str]:
    """Commit with a signature that nobody knows. Return the commit's other headers and its id."""
    headers, _, text = run_git(repository, ["cat-file", "commit", commit(repository, message)]).partition(b"\n\n")
    signed = b"\n\n".join([headers + b"\ngpgsig -----BEGIN-----\n \n more\n -----END-----", text])
    sha = run_git(repository, ["hash-object", "-t", "commit", "-w", "--stdin"], stdin=signed).decode().strip()
    run_git(repository, ["reset", "--quiet", "--hard", sha])
    return headers, sha


def test_a_changed_commit_loses_its_signature(repository: Path) -> None:
    base = head_of(repository)
    headers, sha = signed_by_the_agent(repository, "Fixes #9")
    written = run_git(repository, ["cat-file", "commit", neutralised(repository, base)[sha]])
    assert written.partition(b"\n\n")[0] == headers


def in_encoding(repository: Path, encoding: str, message: bytes, author: bytes = b"Agent") -> str:
    """Commit with the header `encoding`. Return the commit's id."""
    raw = run_git(repository, ["cat-file", "commit", commit(repository, "Replaced")])
    headers = raw.partition(b"\n\n")[0].replace(b"author Agent", b"author " + author)
    content = headers + f"\nencoding {encoding}\n\n".encode() + message
    sha = run_git(repository, ["hash-object", "-t", "commit", "-w", "--stdin"], stdin=content).decode().strip()
    run_git(repository, ["reset", "--quiet", "--hard", sha])
    return sha


ACTIVE = "fixes #1 @org/team [skip ci] https://evil.example"
HARMLESS = "fixes \u200b#\u200b1 @\u200borg/team [skip\u200b ci] https\u200b:/\u200b/evil.example"


@pytest.mark.parametrize(
    "encoding",
    ["cp037", "utf-7", "utf-16-le", "iso-8859-1", "Shift_JIS", "GB18030", "UTF-8", "no-such-encoding", "hex"],
)
@pytest.mark.parametrize("disguise", [None, "cp037", "utf-7", "utf-16-le"], ids=str)
def test_no_encoding_hides_the_active_parts_of_a_message(repository: Path, encoding: str, disguise: str | None) -> None:
    base = head_of(repository)
    sha = in_encoding(repository, encoding, ACTIVE.encode(disguise or "utf-8"))
    written = neutralised(repository, base)[sha]
    raw = run_git(repository, ["cat-file", "commit", written])
    headers, _, message = raw.decode().partition("\n\n")
    assert "encoding" not in headers
    assert (message == HARMLESS) if disguise is None else (ACTIVE not in message)


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "latin1", "windows-1252", "GB18030"])
def test_a_commit_in_another_encoding_is_written_in_utf8(repository: Path, encoding: str) -> None:
    base = head_of(repository)
    sha = in_encoding(repository, encoding, "Größe\n".encode(encoding), "Jürgen".encode(encoding))
    written = neutralised(repository, base)[sha]
    raw = run_git(repository, ["cat-file", "commit", written]).decode()
    assert "\nauthor Jürgen <" in raw
    assert raw.endswith("\n\nGröße\n")
    run_git(repository, ["fsck", "--strict", written])


def test_a_message_that_is_not_in_its_encoding_is_written_in_utf8(repository: Path) -> None:
    base = head_of(repository)
    sha = in_encoding(repository, "UTF-8", "Größe fixes #1".encode("latin-1"))
    assert messages_of(repository, neutralised(repository, base)[sha])[0] == "Größe fixes \u200b#\u200b1"


def test_a_replayed_commit_names_no_encoding(repository: Path) -> None:
    git = partial(run_git, repository)
    parent = head_of(repository)
    replayed = CommitObject.read(git, in_encoding(repository, "cp037", b"Add it")).replayed_on(parent)
    assert not [header for header in replayed.headers if header.startswith(b"encoding")]


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_each_commit_of_a_line_is_signed_by_its_committer(repository: Path, kind: str) -> None:
    base = head_of(repository)
    shas = [commit(repository, message) for message in ("Add it", "Fixes #9")]
    written = neutralised(repository, base, signer_of(repository, kind))
    assert [*written] == shas
    tip = written[shas[-1]]
    shown = run_git(repository, ["log", "--format=%G?|%GS|%cn <%ce>|%an", f"{base}..{tip}"]).decode().splitlines()
    assert shown == [f"G|ada@example.com|{COMMITTER}|Agent"] * 2
    assert messages_of(repository, tip) == ["Fixes \u200b#\u200b9", "Add it", "Start"]
    run_git(repository, ["fsck", "--strict", tip])


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_signed_commit_always_gets_the_same_id(repository: Path, kind: str) -> None:
    base = head_of(repository)
    commit(repository, "Add it")
    signer = signer_of(repository, kind)
    assert neutralised(repository, base, signer) == neutralised(repository, base, signer)


def test_a_signature_of_an_agent_is_replaced(repository: Path) -> None:
    base = head_of(repository)
    _, sha = signed_by_the_agent(repository, "Add it")
    tip = neutralised(repository, base, signer_of(repository))[sha]
    assert run_git(repository, ["log", "-1", "--format=%G?", tip]).decode().strip() == "G"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"committer": ""}, "the Secret needs a `committer` such as `Ada <ada@example.com>` for its `signingKey`"),
        ({"committer": "Ada\n <ada@example.com>"}, "the Secret needs a `committer`"),
        ({"passphrase": "test-passphrase"}, "is not a private key in OpenSSH's format without a passphrase"),
        ({"kind": "ecdsa"}, "must be an Ed25519 or RSA key"),
    ],
    ids=["no committer", "two lines", "passphrase", "ecdsa"],
)
def test_a_signer_that_cannot_sign_says_why(repository: Path, options: dict[str, str], problem: str) -> None:
    base = head_of(repository)
    commit(repository, "Add it")
    with pytest.raises(CannotSign) as caught:
        neutralised(repository, base, signer_of(repository, **options))
    assert problem in str(caught.value)


def test_a_key_of_another_kind_cannot_sign_and_is_not_shown(repository: Path) -> None:
    base = head_of(repository)
    commit(repository, "Add it")
    signer = Signer("test-key-of-nothing", COMMITTER)
    with pytest.raises(CannotSign) as caught:
        neutralised(repository, base, signer)
    assert "test-key-of-nothing" not in f"{caught.value} {signer!r}"
