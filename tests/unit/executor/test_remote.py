"""Which addresses of repositories are understood, and as what."""

from pathlib import Path

import pytest

from labrats.executor.remote import Remote, parse_remote
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode


@pytest.mark.parametrize(
    ("address", "remote"),
    [
        ("https://git.example/o/r.git", Remote("https://git.example/o/r.git", "https", "git.example", 443)),
        ("HTTPS://Git.Example/o/r", Remote("https://git.example/o/r", "https", "git.example", 443)),
        ("http://git.example:8080/r", Remote("http://git.example:8080/r", "http", "git.example", 8080)),
        ("http://[2001:db8::1]:80/r", Remote("http://[2001:db8::1]:80/r", "http", "2001:db8::1", 80)),
        ("http://192.0.2.1/r", Remote("http://192.0.2.1/r", "http", "192.0.2.1", 80)),
        ("https://user:test-token@git.example/r", Remote("https://git.example/r", "https", "git.example", 443)),
        ("ssh://git@git.example:2222/~/r", Remote("ssh://git@git.example:2222/~/r", "ssh", "git.example", 2222)),
        ("git@git.example:o/r.git", Remote("git@git.example:o/r.git", "ssh", "git.example", 22)),
        ("git.example:r", Remote("git.example:r", "ssh", "git.example", 22)),
    ],
)
def test_an_address_is_read_and_put_together_anew_without_credentials(address: str, remote: Remote) -> None:
    assert parse_remote(address) == remote


@pytest.mark.parametrize(
    "address",
    [
        "",
        "r",
        "ext::sh -c touch% /tmp/pwned",
        "ext::sh",
        "file:///etc",
        "git://git.example/r",
        "ftp://git.example/r",
        "https://",
        "https:///r",
        "https://git.example",
        "https://git.example/r?x=y",
        "https://git.example/r#x",
        "https://git.example/a b",
        "https://git.example/a\nb",
        "https://git.example:99999/r",
        "https://-oProxyCommand=x/r",
        "https://exa%6dple/r",
        "https://ex\u00e4mple/r",
        "https://git.example./r",
        "https://git.example\\@evil.example/r",
        "ssh://-oProxyCommand=x/r",
        "ssh://-x@git.example/r",
        "-oProxyCommand=x:r",
        "--upload-pack=x:r",
        "-u@git.example:r",
        "git@git.example:a b",
        "C:\\repo\\ x",
    ],
)
def test_every_other_address_is_refused(address: str) -> None:
    with pytest.raises(GiveUp) as refused:
        parse_remote(address)

    assert refused.value.code == FailedCode.GIT_CLONE


def test_a_refusal_does_not_repeat_a_token() -> None:
    with pytest.raises(GiveUp) as refused:
        parse_remote("ftp://user:test-token@git.example/r")

    assert "test-token" not in str(refused.value)


def test_a_local_path_is_allowed_only_below_a_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "repo").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)

    assert parse_remote(f"{root}/repo", [str(root)]) == Remote(f"{root}/repo", "file")
    for path in (outside, f"{root}/../outside", f"{root}/link", f"{root}extra"):
        with pytest.raises(GiveUp, match="LOCAL_REPO_ROOTS"):
            parse_remote(str(path), [str(root)])
    with pytest.raises(GiveUp, match="LOCAL_REPO_ROOTS"):
        parse_remote(f"{root}/repo")
