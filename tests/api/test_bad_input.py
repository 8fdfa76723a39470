"""Invalid values of every field of a submission. Each is refused with an error that names the field."""

import base64
import json
from typing import Any

import httpx2
import pytest

from labrats.api.http.body_bounds import USUAL
from labrats.api.http.json_body import MAX_DEPTH
from labrats.model.job import Job
from tests.api.conftest import Api, a_submission

JSON = {"Content-Type": "application/json"}
MISSING = object()
NO_TEXT: list[Any] = [1, 1.5, True, [], {}, ["text"]]
NO_INTEGER: list[Any] = ["1", 1.5, True, [], {}, "one"]
NO_NUMBER: list[Any] = ["1", True, [], {}, "one"]
NO_BOOLEAN: list[Any] = ["true", 1, 0, [], {}]
NO_OBJECT: list[Any] = [1, "text", True, []]
NO_LIST: list[Any] = [1, "text", True, {}]
ODD_LABELS: list[Any] = ["", "x" * 201, "two\nlines", "nul\0", "escape\x1b[31m", "del\x7f"]

BAD_VALUES: dict[str, list[Any]] = {
    "source": [MISSING, None, *NO_TEXT, *ODD_LABELS],
    "type": [MISSING, None, *NO_TEXT, *ODD_LABELS],
    "prompt": [MISSING, None, "", *NO_TEXT],
    "errors": [*NO_LIST, []],
    "errors[0]": [None, *NO_OBJECT],
    "errors[0].message": [MISSING, None, "", *NO_TEXT],
    "errors[0].stack": NO_TEXT,
    "errors[0].count": [*NO_INTEGER, -1],
    "errors[0].firstSeen": NO_TEXT,
    "errors[0].lastSeen": NO_TEXT,
    "errors[0].service": NO_TEXT,
    "errors[0].level": NO_TEXT,
    "errors[0].context": NO_OBJECT,
    "priority": [None, *NO_NUMBER, -1001, 1001, 10**10],
    "agentRole": [*NO_TEXT, *ODD_LABELS],
    "workspaceSetup": NO_OBJECT,
    "workspaceSetup.gitRepo": [
        *NO_TEXT, "", "repo", "./repo", "../repo", "/etc", "~/repo", "file:///etc", "ext::sh -c id", "ext::id",
        "fd::17", "--upload-pack=id", "-u", "git://example.com/a", "ftp://example.com/a", "gopher://example.com/a", "://a/b",
        "https://", "https:///a/b", "https://example.com", "https://example.com/", "https://example.com:99999/a",
        "https://example.com/a?b=c", "https://example.com/a#b", "https://-oProxyCommand=id/a", "ssh://-oProxyCommand=id/a",
        "-oProxyCommand=id:a", "host:-a", "https://example.com/a b", "https://example.com/a\n", "https://exa\0mple.com/a",
        "https://[::1/a", "https://user:pass@10.0.0.1/a", "http://127.0.0.1/a", "http://localhost/a", "http://0/a",
        "http://2130706433/a", "http://0x7f000001/a", "http://127.1/a", "http://[::1]/a", "http://[::ffff:127.0.0.1]/a",
        "http://169.254.169.254/latest", "ssh://git@10.0.0.1/a", "git@127.0.0.1:a", "https://" + "x" * 2048 + "/a",
    ],
    "workspaceSetup.gitRef": [
        *NO_TEXT, "", "-f", "--upload-pack=id", "a b", "a\nb", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b",
        "/a", "a@{1}", "x" * 256, "\0",
    ],
    "workspaceSetup.gitDepth": [*NO_INTEGER, 0, -1, 10**7],
    "workspaceFiles": [None, *NO_LIST, [{"name": f"{n}", "data": ""} for n in range(1001)]],
    "workspaceFiles[0]": [None, *NO_OBJECT],
    "workspaceFiles[0].name": [
        MISSING, None, *NO_TEXT, "", "/", "/etc/passwd", "..", ".", "../a", "a/../b", "a/..", "./a", "a/./b", "a//b",
        "a/", "..\\a", "C:\\a", "a\0b", "a\nb", "a\x7f", ".git", ".git/config", "a/.git/hooks/x", ".GIT/config",
        "x" * 256, "a/" + "x" * 256, "a/" * 600 + "b", "ä" * 128,
    ],
    "workspaceFiles[0].data": [MISSING, None, *NO_TEXT, "a", "====", "aGk", "a G k=", "aGk=\n", "aGk-", "aGk=aG=="],
    "workspaceUploads": [*NO_LIST],
    "workspaceUploads[0]": [None, *NO_OBJECT],
    "workspaceUploads[0].id": [MISSING, None, *NO_TEXT, *ODD_LABELS],
    "workspaceUploads[0].name": [MISSING, None, *NO_TEXT, *ODD_LABELS],
    "config": [None, *NO_OBJECT],
    "config.model": [*NO_TEXT, *ODD_LABELS],
    "config.effort": [*NO_TEXT, "", "utmost", "High"],
    "config.provider": [*NO_TEXT, "", "open-ai", "Claude"],
    "config.fast": NO_BOOLEAN,
    "config.timeoutMs": [*NO_INTEGER, 0, -1, 7 * 24 * 3600 * 1000 + 1],
    "config.maxTurns": [*NO_INTEGER, 0, -1, 100_001],
    "config.executorImage": [*NO_TEXT, *ODD_LABELS],
    "config.reactEnabled": NO_BOOLEAN,
    "config.maxCostUsd": [*NO_NUMBER, 0, -1],
    "config.maxTokens": [*NO_INTEGER, 0, -1],
    "config.maxAttempts": [*NO_INTEGER, 0, -1, 101],
    "config.fallbackModel": [*NO_TEXT, *ODD_LABELS],
    "config.mcpServers": NO_OBJECT,
    "config.sampling": NO_OBJECT,
    "config.sampling.temperature": [*NO_NUMBER, -0.1, 2.1],
    "config.sampling.topP": [*NO_NUMBER, 0, 1.1],
    "config.sampling.topK": [*NO_INTEGER, -1, 10**6 + 1],
    "config.sampling.minP": [*NO_NUMBER, -0.1, 1.1],
    "config.sampling.presencePenalty": [*NO_NUMBER, -2.1, 2.1],
    "config.sampling.frequencyPenalty": [*NO_NUMBER, -2.1, 2.1],
    "config.sampling.repetitionPenalty": [*NO_NUMBER, 0, 2.1],
    "config.sampling.seed": [*NO_INTEGER, -1, 2**32],
    "config.sampling.reasoningEffort": [*NO_TEXT, "", "much"],
    "callbackUrl": [
        *NO_TEXT, "", "callback", "/callback", "ftp://example.com/", "javascript:alert(1)", "http://", "http://[::1",
        "http://user:pass@1.1.1.1/", "http://user@1.1.1.1/", "http://127.0.0.1/", "http://localhost/", "http://[::1]/",
        "http://10.0.0.1/", "http://169.254.169.254/", "http://0/", "http://2130706433/", "http://[::ffff:10.0.0.1]/",
        "http://example.com:99999/", "http://no-such-host.invalid/", "http://" + "x" * 2048,
    ],
    "pipeline": NO_OBJECT,
    "pipeline.type": [MISSING, None, *NO_TEXT, "", "pdf"],
    "metadata": [None, *NO_OBJECT],
}  # fmt: skip

UNKNOWN_FIELDS = [
    "extra", "Source", "agent_role", "workspaceSetup.extra", "workspaceSetup.git_repo", "workspaceFiles[0].extra",
    "workspaceUploads[0].extra", "config.extra", "config.timeout_ms", "config.sampling.extra", "config.sampling.top_p",
    "config.timeout", "errors[0].extra",
    "pipeline.extra", "body", "query", "path", "header",
]  # fmt: skip

BAD_SCRIPTS: dict[str, list[Any]] = {
    "metadata.mock": [None, 1, "text", [], {}, {"steps": [], "extra": 1}, {"step": []}],
    "metadata.mock.steps": [{"steps": None}, {"steps": 1}, {"steps": "text"}, {"steps": {}}],
}
BAD_STEPS: dict[str, list[Any]] = {
    "": [None, 1, "text", [], {}, {"unknown": 1}, {"log": "a", "fail": "b"}, {"hang": True, "sleepMs": 1}],
    ".log": [{"log": 1}, {"log": None}],
    ".times": [{"log": "a", "times": value} for value in (0, -1, "1", 1.5, 10**13)],
    ".everyMs": [{"log": "a", "everyMs": value} for value in (-1, "1", 1.5)],
    ".sleepMs": [{"sleepMs": value} for value in (-1, "1", None, 1.5)],
    ".write": [{"write": "a"}],
    ".write.path": [{"write": {"path": value, "text": ""}} for value in (1, "")],
    ".write.text": [{"write": {"path": "a", "text": 1}}],
    ".usage": [{"usage": 1}],
    ".usage.inputTokens": [{"usage": {"inputTokens": value}} for value in (-1, "1", 1.5, 10**13)],
    ".usage.costUsd": [{"usage": {"costUsd": value}} for value in (-1, "1")],
    ".fail": [{"fail": 1}, {"fail": None}],
    ".exit": [{"exit": value} for value in (-1, 256, "3")],
    ".signal": [{"signal": value} for value in (0, 65, "9")],
    ".hang": [{"hang": value} for value in (False, 1, "true")],
    ".ignoreSignals": [{"ignoreSignals": value} for value in (False, 1)],
    ".fork.seconds": [{"fork": {"seconds": value}} for value in (0, "1")],
    ".fork.detached": [{"fork": {"seconds": 1, "detached": 1}}],
    ".onAttempt": [{"onAttempt": value, "steps": []} for value in (0, "1")],
    ".steps": [{"onAttempt": 1, "steps": 1}],
    ".steps[0]": [{"onAttempt": 1, "steps": [{"onAttempt": 1, "steps": []}]}],
    ".steps[0].log": [{"onAttempt": 1, "steps": [{"log": 1}]}],
}
BAD_MOCKS = BAD_SCRIPTS | {
    f"metadata.mock.steps[1]{field}": [{"steps": [{"log": "good"}, step]} for step in steps]
    for field, steps in BAD_STEPS.items()
}

MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "blank": b"  ",
    "open": b'{"source": "manual"',
    "trailing comma": b'{"source": "manual",}',
    "two values": b"{} {}",
    "single quotes": b"{'source': 'manual'}",
    "comment": b"{} // comment",
    "not UTF-8": b'{"source": "\xff"}',
    "UTF-16": '{"source": "manual"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "control character": b'{"source": "a\nb"}',
    "NaN": b'{"priority": NaN}',
    "Infinity": b'{"priority": Infinity}',
    "-Infinity": b'{"priority": -Infinity}',
    "1e999": b'{"priority": 1e999}',
    "2**70": b'{"priority": 1180591620717411303424}',
    "a number of a million digits": b'{"priority": ' + b"1" * 1_000_000 + b"}",
    "lone surrogate": b'{"source": "\\ud83d"}',
    "lone surrogate as a name": b'{"\\udc00": 1}',
    "lone surrogate as a name, twice": b'{"\\udc00": 1, "\\udc00": 2}',
    "the same field twice": b'{"source": "a", "source": "b"}',
    "the same field twice, deep inside": b'{"metadata": {"a": [{"b": 1, "b": 1}]}}',
    "a very long field twice": b'{"%b": 1, "%b": 2}' % (b"x" * 100_000, b"x" * 100_000),
    "too deep": b'{"metadata": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    "far too deep": b"[" * 1_000_000,
    "deep, with a surrogate": b'{"\\ud83d":' * 900 + b"1" + b"}" * 900,
    "too many values": b"[" + b"1," * USUAL.values + b"1]",
    "too many fields": b"{" + b",".join(b'"%d":1' % number for number in range(USUAL.values + 1)) + b"}",
}


def with_field(path: str, value: Any) -> dict[str, Any]:
    """Return a valid submission except for the field at `path`, which is `value` or missing."""
    around: dict[str, Any] = {
        "workspaceFiles": {"name": "a.txt", "data": "aGk="},
        "workspaceUploads": {"id": "upload-1", "name": "a.pdf"},
        "errors": {"message": "it broke"},
        "pipeline": {"type": "pdf-sections"},
        "config": {"provider": "mock"},
        "workspaceSetup": {"gitRepo": "https://github.com/octocat/hello.git"},
    }
    outer, _, inner = path.partition(".")
    name, is_item, _ = outer.partition("[0]")
    if inner:
        value = {key: each for key, each in (around[name] | {inner: value}).items() if each is not MISSING}
    submission = a_submission(**{name: [value] if is_item else value})
    return {key: each for key, each in submission.items() if each is not MISSING}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    """Return a test case for each value of the table."""
    return [
        pytest.param(field, value, id=f"{field}={'(missing)' if value is MISSING else ascii(value)[:40]}")
        for field, values in table.items()
        for value in values
    ]


async def assert_refused(answer: httpx2.Response, api: Api, field: str) -> None:
    """Check for a 422 that names only `field`, and that no job was stored."""
    assert answer.status_code == 422, answer.text
    body = answer.json()
    assert set(body) == {"error", "code", "details"}
    assert {detail["field"] for detail in body["details"]} == {field}
    assert all(detail["message"] for detail in body["details"])
    assert field in body["error"]
    assert await api.store.list(Job) == []


@pytest.mark.parametrize(("field", "value"), cases(BAD_VALUES))
async def test_an_invalid_field_is_named(api: Api, user: httpx2.AsyncClient, field: str, value: Any) -> None:
    answer = await user.post("/api/jobs/submit", json=with_field(field, value))

    await assert_refused(answer, api, field)


@pytest.mark.parametrize("field", UNKNOWN_FIELDS)
async def test_an_unknown_field_is_named(api: Api, user: httpx2.AsyncClient, field: str) -> None:
    answer = await user.post("/api/jobs/submit", json=with_field(field, 1))

    await assert_refused(answer, api, field)
    assert answer.json()["details"][0]["message"] == "there is no such field"


@pytest.mark.parametrize(("field", "mock"), cases(BAD_MOCKS))
async def test_an_invalid_mock_script_is_named_by_its_step(
    api: Api, user: httpx2.AsyncClient, field: str, mock: Any
) -> None:
    answer = await user.post("/api/jobs/submit", json=a_submission(metadata={"mock": mock}))

    await assert_refused(answer, api, field)


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_body_that_is_not_strict_json_is_malformed(api: Api, user: httpx2.AsyncClient, body: bytes) -> None:
    answer = await user.post("/api/jobs/submit", content=body, headers=JSON)

    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "malformed"
    assert len(answer.text) < 300
    assert await api.store.list(Job) == []


@pytest.mark.parametrize("body", [[], "text", 1, None, True])
async def test_a_body_that_is_no_object_is_refused(api: Api, user: httpx2.AsyncClient, body: Any) -> None:
    answer = await user.post("/api/jobs/submit", content=json.dumps(body), headers=JSON)

    await assert_refused(answer, api, "body")


async def test_an_error_report_needs_errors_or_a_prompt(api: Api, user: httpx2.AsyncClient) -> None:
    answer = await user.post("/api/jobs/submit", json={"source": "manual", "type": "error-reporting"})

    await assert_refused(answer, api, "errors")
    with_prompt = await user.post("/api/jobs/submit", json=a_submission(type="error-reporting"))
    assert with_prompt.status_code == 201


async def test_a_ref_needs_a_repository(api: Api, user: httpx2.AsyncClient) -> None:
    for setup in ({"gitRef": "main"}, {"gitDepth": 1}):
        answer = await user.post("/api/jobs/submit", json=a_submission(workspaceSetup=setup))
        await assert_refused(answer, api, "workspaceSetup.gitRepo")


@pytest.mark.parametrize(
    "names",
    [["a", "a"], ["a/b", "a/b"], ["a", "a/b"], ["a/b", "a"], ["README", "readme"], ["x", "A/b", "a/B"], ["a", "A/b"]],
)
async def test_two_files_cannot_have_the_same_path(api: Api, user: httpx2.AsyncClient, names: list[str]) -> None:
    files = [{"name": name, "data": ""} for name in names]

    answer = await user.post("/api/jobs/submit", json=a_submission(workspaceFiles=files))

    await assert_refused(answer, api, f"workspaceFiles[{len(names) - 1}].name")


async def test_all_invalid_fields_are_named_at_once(user: httpx2.AsyncClient) -> None:
    answer = await user.post(
        "/api/jobs/submit", json={"source": 1, "config": {"effort": "utmost", "fast": 1}, "extra": 1}
    )

    details = answer.json()["details"]
    named = [detail["field"] for detail in details]
    assert sorted(named) == ["config.effort", "config.fast", "extra", "prompt", "source", "type"]
    assert {detail["field"]: detail["message"] for detail in details}[
        "config.effort"
    ] == "must be 'low', 'medium', 'high', 'xhigh' or 'max'"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("source", "two\nlines", "must be one line, without control characters"),
        ("source", 1, "must be a string"),
        ("errors", [], "must have at least 1 item"),
        ("config.maxTurns", "one", "must be a whole number"),
        ("config.maxTurns", 0, "must be at least 1"),
        ("config.maxAttempts", 101, "must be at most 100"),
        ("config.maxCostUsd", 0, "must be more than 0.0"),
        ("config.fast", "true", "must be true or false"),
        ("workspaceSetup.gitRef", "a b", "must be a valid name of a git branch, tag or commit"),
    ],
)
async def test_error_messages_use_the_terms_of_json(
    user: httpx2.AsyncClient, field: str, value: Any, message: str
) -> None:
    answer = await user.post("/api/jobs/submit", json=with_field(field, value))

    assert answer.json()["details"] == [{"field": field, "message": message}]


async def test_an_invalid_query_parameter_has_the_same_message(user: httpx2.AsyncClient) -> None:
    answer = await user.get("/api/jobs?page=first")

    assert answer.json()["details"] == [{"field": "page", "message": "must be a whole number"}]


async def test_an_error_stays_short_for_any_request(user: httpx2.AsyncClient) -> None:
    bodies = [{f"field{number}" * 50: 1 for number in range(5000)}, {"x" * 1_000_000: 1}, {"source": "x" * 1_000_000}]
    for body in bodies:
        answer = await user.post("/api/jobs/submit", json=body)
        assert answer.status_code == 422
        assert len(answer.content) < 50_000


GOOD = {
    "unicode": {"source": "ümläut 📄", "type": "日本語", "prompt": "\u202e\u0000", "metadata": {"ключ": ["\u0000"]}},
    "longest labels": {"source": "x" * 200, "type": "y" * 200},
    "negative and fractional priority": {"priority": -0.5},
    "a whole number written as a float": {"priority": 3.0},
    "largest integers": {"metadata": {"n": [2**63 - 1, -(2**63)]}},
    "deep metadata": {"metadata": json.loads('{"a":' * 60 + "1" + "}" * 60)},
    "a surrogate pair": {"prompt": "\U0001f4c4"},
    "nulls where they may be": {"errors": None, "agentRole": None, "callbackUrl": None, "config": {"model": None}},
    "a public address to call back": {"callbackUrl": "https://1.1.1.1:8443/hook?id=1"},
    "a script of no steps": {"metadata": {"mock": {"steps": []}}},
    "metadata.mock of another provider": {"config": {"provider": "claude"}, "metadata": {"mock": "mine"}},
    "odd but honest file names": {
        "workspaceFiles": [
            {"name": name, "data": base64.b64encode(name.encode()).decode()}
            for name in (
                "a b",
                ".env",
                "...",
                "-rf",
                "a..b",
                "*",
                "%2e%2e",
                "ä/ö",
                "CON",
                "x" * 255,
                "git",
                ".gitignore",
            )
        ]
    },
}


@pytest.mark.parametrize("fields", GOOD.values(), ids=GOOD)
async def test_unusual_but_valid_input_is_accepted(user: httpx2.AsyncClient, fields: dict[str, Any]) -> None:
    answer = await user.post("/api/jobs/submit", content=json.dumps(a_submission(**fields)), headers=JSON)

    assert answer.status_code == 201, answer.text
    detail = (await user.get(f"/api/jobs/{answer.json()['jobId']}")).json()
    for field, name in (("source", "source"), ("type", "name"), ("metadata", "metadata"), ("priority", "priority")):
        if field in fields:
            assert detail[name] == fields[field]
