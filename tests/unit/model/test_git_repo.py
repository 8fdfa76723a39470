"""Valid addresses of repositories, and the separation of credentials from them."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labrats.model.errors import Invalid
from labrats.model.git_repo import FIELD, MAX_LENGTH, GitRepo, parse_git_repo

TOKEN = "test-token-0123456789"


def remote(url: str, host: str, port: int, **credential: str) -> GitRepo:
    return GitRepo(url, host, port, **credential)


@pytest.mark.parametrize(
    ("address", "repo"),
    [
        ("https://git.example/o/r.git", remote("https://git.example/o/r.git", "git.example", 443)),
        ("http://git.example/o/r", remote("http://git.example/o/r", "git.example", 80)),
        ("https://git.example:8443/r", remote("https://git.example:8443/r", "git.example", 8443)),
        ("https://git.example:/r", remote("https://git.example:/r", "git.example", 443)),
        ("HTTPS://Git.Example/R", remote("https://Git.Example/R", "git.example", 443)),
        ("https://192.0.2.7/r", remote("https://192.0.2.7/r", "192.0.2.7", 443)),
        ("https://[2001:db8::1]/r", remote("https://[2001:db8::1]/r", "2001:db8::1", 443)),
        ("https://[2001:db8::1]:8443/r", remote("https://[2001:db8::1]:8443/r", "2001:db8::1", 8443)),
        ("https://git.example/r%20with%20spaces", remote("https://git.example/r%20with%20spaces", "git.example", 443)),
        ("ssh://git.example/r", remote("ssh://git.example/r", "git.example", 22)),
        ("ssh://git@git.example/o/r.git", remote("ssh://git@git.example/o/r.git", "git.example", 22)),
        ("ssh://git@git.example:2222/~/r", remote("ssh://git@git.example:2222/~/r", "git.example", 2222)),
        ("git@git.example:o/r.git", remote("git@git.example:o/r.git", "git.example", 22)),
        ("git.example:r", remote("git.example:r", "git.example", 22)),
        ("git@Git.Example:/srv/r", remote("git@Git.Example:/srv/r", "git.example", 22)),
    ],
)
def test_a_valid_address_is_parsed(address: str, repo: GitRepo) -> None:
    assert parse_git_repo(address) == repo


@pytest.mark.parametrize(
    ("userinfo", "username", "password"),
    [
        (TOKEN, TOKEN, ""),
        (f"x-access-token:{TOKEN}", "x-access-token", TOKEN),
        (f":{TOKEN}", "", TOKEN),
        (f"user:{TOKEN}:with:colons", "user", f"{TOKEN}:with:colons"),
        (f"user:{TOKEN}%40%2F%3A%25", "user", f"{TOKEN}@/:%"),
        ("us%40er:p%C3%A4ss", "us@er", "päss"),
        (f"user@company:{TOKEN}", "user@company", TOKEN),
        (f"user:{TOKEN}%20", "user", f"{TOKEN} "),
        ("", "", ""),
    ],
)
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_credential_is_split_off_and_decoded(scheme: str, userinfo: str, username: str, password: str) -> None:
    repo = parse_git_repo(f"{scheme}://{userinfo}@git.example:8443/o/r.git")
    assert (repo.username, repo.password) == (username, password)
    assert repo.has_credential is bool(username or password)
    assert repo.url == f"{scheme}://git.example:8443/o/r.git"
    assert TOKEN not in repr(repo)


def test_a_local_path_is_valid_only_below_a_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "größe", tmp_path / "outside"
    (root / "repo").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)

    assert parse_git_repo(f"{root}/repo", [str(root)]) == GitRepo(f"{root}/repo")
    for path in (str(outside), f"{root}/../outside", f"{root}/link", f"{root}extra"):
        with pytest.raises(Invalid, match="LOCAL_REPO_ROOTS"):
            parse_git_repo(path, [str(root)])
    with pytest.raises(Invalid, match="LOCAL_REPO_ROOTS"):
        parse_git_repo(f"{root}/repo")


@pytest.mark.parametrize(
    ("address", "transport"),
    [("https://h/r", "https"), ("HTTP://h/r", "http"), ("ssh://h/r", "ssh"), ("git@h:r", "ssh"), ("/srv/r", "file")],
)
def test_the_transport_is_that_of_the_address(address: str, transport: str) -> None:
    assert parse_git_repo(address, ["/srv"]).transport == transport


def test_only_a_path_is_local() -> None:
    assert parse_git_repo("/srv/r", ["/srv"]).is_local
    assert not parse_git_repo("https://git.example/r").is_local
    assert not parse_git_repo("git.example:r").is_local


REFUSED = {
    "nothing": ["", "r", ".", "../r", "~/r", "r/r"],
    "other transports": [
        "ext::sh -c id",
        "ext::sh",
        "ext::https://git.example/r",
        "fd::17",
        "https::https://git.example/r",
        "file:///etc",
        "FILE:///etc",
        "file://localhost/etc",
        "git://git.example/r",
        "git+ssh://git.example/r",
        "ftp://git.example/r",
        "rsync://git.example/r",
        "javascript://git.example/r",
        "://git.example/r",
    ],
    "options": [
        "-u",
        "--upload-pack=touch",
        "-oProxyCommand=id:r",
        "--upload-pack=id:r",
        "-u@git.example:r",
        "git@-oProxyCommand=id:r",
        "git.example:-r",
        "git.example:--upload-pack=id",
        "ssh://-oProxyCommand=id/r",
        "ssh://-oProxyCommand=id@git.example/r",
        "ssh://%2DoProxyCommand=id/r",
        "ssh://%2doProxyCommand=id@git.example/r",
        "https://-git.example/r",
    ],
    "control characters and spaces": [
        "https://git.example/r\n",
        "https://git.example/r\r\nHost: evil.example",
        "https://git.example/a b",
        "https://git.example/a\tb",
        "https://git.example/a\0b",
        "https://git.example/a\x7fb",
        "https://git.example/a\u2028b",
        "https://git.example/a\u202eb",
        "https://git.example/a\u00a0b",
        "https://git.example/a\ud800b",
        "https://git.example/a%0Ab",
        "https://git.example/a%00b",
        "https://git%0a.example/r",
        f"https://user%0d%0a:{TOKEN}@git.example/r",
        f"https://user:{TOKEN}%0ahost=evil.example@git.example/r",
        "git@git.example:a\nb",
        "/srv/r\n",
    ],
    "odd hosts": [
        "https:///r",
        "https://@/r",
        "https://user@/r",
        "https://:443/r",
        "https://git.example:x/r",
        "https://git.example:65536/r",
        "https://git.example:-1/r",
        "https://git.example:0/r",
        "https://git.example./r",
        "https://.git.example/r",
        "https://gi%74.example/r",
        "https://git.example\\@evil.example/r",
        "https://git.example\\.evil.example/r",
        "https://gít.example/r",
        "https://git。example/r",
        "https://ｇｉｔ.example/r",
        "https://①②⑦.0.0.1/r",
        "https://git.example\uff0f@evil.example/r",
        "https://[2001:db8::1/r",
        "https://2001:db8::1/r",
        "https://[fe80::1%25eth0]/r",
        "https://git_example!/r",
        "https://git.example,evil.example/r",
        "https://*.example/r",
        "[2001:db8::1]:r",
        "git@@git.example:r",
        "git@:r",
        "C:\\r",
    ],
    "what is not ASCII": [
        "https://git.example/größe",
        "git.example:größe",
        f"https://üser:{TOKEN}@git.example/r",
    ],
    "no repository": ["https://git.example", "https://git.example/", "https://git.example//", "ssh://git@git.example/"],
    "query and fragment": [
        "https://git.example/r?x=1",
        "https://git.example/r#x",
        f"https://git.example/r?token={TOKEN}",
    ],
    "tokens that would be taken for a part of an ssh address": [
        f"x-access-token:{TOKEN}@github.com/o/r",
        f"https:/x:{TOKEN}@github.com/o/r",
        f"https:x:{TOKEN}@github.com/o/r",
        f"HTTPS:/{TOKEN}@github.com/o/r",
        f"https:/github.com/{TOKEN}",
        f"{TOKEN}:x-oauth-basic@github.com/o/r",
        f"user:{TOKEN}@github.com:o/r",
        "ghp_0123456789@github.com:o/r",
        f"ssh://{'t' * 40}@github.com/o/r",
        "ssh://github_pat_0123456789@github.com/o/r",
        "https://github.com/ghp_0123456789/r",
    ],
    "ssh passwords": [f"ssh://git:{TOKEN}@git.example/r", "ssh://git:@git.example/r"],
    "length": ["https://git.example/" + "r" * MAX_LENGTH],
}


@pytest.mark.parametrize(
    "address", [pytest.param(it, id=f"{why} {it[:40]!a}") for why in REFUSED for it in REFUSED[why]]
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_git_repo(address)
    (problem,) = refusal.value.problems
    assert problem.field == FIELD
    assert TOKEN not in texts_of(refusal.value)


def texts_of(error: BaseException | None) -> str:
    """Return the text of an error and of all its causes."""
    texts = []
    while error:
        texts.append(f"{error} {error.args!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return " ".join(texts)


ADDRESS_PIECES = st.lists(st.sampled_from("https ssh ext : // / @ git - . example %0a %2f [ ] ::1 r 8 ?".split()))


@given(ADDRESS_PIECES.map("".join) | st.text(max_size=50))
@example(f"https://user:{TOKEN}@git.example/r")
def test_an_accepted_address_is_where_the_executor_connects(address: str) -> None:
    """The parser checks host and port, and the executor parses the address again: both must agree."""
    try:
        repo = parse_git_repo(address)
    except Invalid:
        return
    again = parse_git_repo(repo.url)
    assert (again.host, again.port, again.has_credential) == (repo.host, repo.port, False)
