"""The stand-in for GitHub: what it refuses, and the faults that tests can plan."""

import re
import threading
import time
from typing import Any, Final

import httpx2
import pytest

from tests.github.conftest import WRITES, Client, a_token, an_app_jwt
from tests.support.github import APP_ID, APP_LOGIN, Fault, GitHubStandIn, Issue, a_github
from tests.support.github.contract import EXCERPT, find_operation
from tests.support.github.faults import LOST, UNAVAILABLE
from tests.support.github.routing import ROUTES

DEMO: Final = "/repos/octo/demo"


def test_the_excerpt_has_each_operation_of_the_stand_in() -> None:
    documented = set(re.findall(r'^ "(\w+ /[^"]*)"', EXCERPT.read_text(), re.MULTILINE))
    assert documented == ROUTES.keys()


class TestContract:
    @pytest.mark.parametrize(
        ("method", "path", "body", "problem"),
        [
            ("POST", f"{DEMO}/issues/1/comments", {"text": "Hello"}, '"body" is a required property'),
            ("POST", f"{DEMO}/issues/1/comments", {"body": "Hello", "pinned": True}, "'pinned' was unexpected"),
            ("POST", f"{DEMO}/issues/1/comments", {"body": 7}, "is not of type"),
            ("POST", f"{DEMO}/issues/1/comments", None, "the body is missing"),
            ("GET", f"{DEMO}/issues/one/comments", None, "path parameter issue_number"),
            ("GET", f"{DEMO}/issues/1/comments?perPage=10", None, "query parameter perPage is not documented"),
            ("GET", f"{DEMO}/pulls?state=merged", None, "query parameter state"),
            ("POST", f"{DEMO}/check-runs", {"name": "a", "head_sha": "b", "actions": [{}] * 4}, "actions"),
            ("POST", f"{DEMO}/issues/1/reactions", {"content": "tada"}, "content"),
            ("GET", f"{DEMO}/secrets", None, "not in the excerpt"),
            ("POST", "/graphql", {"query": "{ viewer { shoeSize } }"}, "Cannot query field 'shoeSize'"),
            ("POST", "/graphql", {"query": "{ viewer "}, "Syntax Error"),
        ],
    )
    def test_an_undocumented_request_is_a_violation(
        self, github: GitHubStandIn, bot: httpx2.Client, method: str, path: str, body: Any, problem: str
    ) -> None:
        assert bot.request(method, path, json=body).status_code == 400
        assert any(problem in violation for violation in github.violations), github.violations
        github.violations.clear()

    def test_a_violation_fails_the_test_at_its_end(self) -> None:
        with pytest.raises(AssertionError, match="GET /nothing"), a_github() as github:
            httpx2.get(f"{github.url}/nothing")

    def test_names_with_slashes_match_their_operation(self) -> None:
        found = find_operation("GET", f"{DEMO}/git/ref/heads/labrats/reviewer/7")
        assert found
        assert (found[0].template, found[1]["ref"]) == (
            "/repos/{owner}/{repo}/git/ref/{ref}",
            "heads/labrats/reviewer/7",
        )
        encoded = find_operation("DELETE", f"{DEMO}/issues/7/labels/needs%2Fhuman")
        assert encoded
        assert encoded[1]["name"] == "needs/human"


class TestAccess:
    @pytest.mark.parametrize(
        ("method", "path", "body", "permissions"),
        [
            ("POST", "issues/1/comments", {"body": "Hello"}, {"pull_requests": "write"}),
            ("POST", "issues/1/comments", {"body": "Hello"}, {"issues": "read"}),
            ("POST", "issues/1/labels", {"labels": ["ai"]}, {"contents": "write"}),
            ("POST", "check-runs", {"name": "a", "head_sha": "b"}, {"checks": "read"}),
            ("POST", "statuses/abc", {"state": "success"}, {"checks": "write"}),
            ("POST", "pulls", {"title": "A", "head": "fix", "base": "main"}, {"contents": "write"}),
            ("POST", "git/refs", {"ref": "refs/heads/a", "sha": "b"}, {"contents": "read"}),
            ("GET", "branches/main", None, {"issues": "write"}),
        ],
    )
    def test_a_token_may_do_only_what_its_permissions_allow(
        self, client: Client, issue: Issue, method: str, path: str, body: Any, permissions: dict[str, str]
    ) -> None:
        answer = client(permissions).request(method, f"{DEMO}/{path}", json=body)
        assert (answer.status_code, answer.json()["message"]) == (403, "Resource not accessible by integration")
        assert issue.comments == []

    def test_the_permission_for_pull_requests_allows_comments_on_those(self, client: Client, pull: Issue) -> None:
        answer = client({"pull_requests": "write"}).post(f"{DEMO}/issues/{pull.number}/comments", json={"body": "Hi"})
        assert answer.status_code == 201

    def test_a_token_reaches_no_other_repository(self, github: GitHubStandIn, bot: httpx2.Client) -> None:
        github.add_repository("octo/other")
        assert bot.get("/repos/octo/other").status_code == 404
        assert bot.get(DEMO).json()["permissions"] == {"pull": True, "push": True, "admin": False}

    def test_no_token_has_more_permissions_than_the_installation(self, github: GitHubStandIn) -> None:
        github.access.permissions["checks"] = "read"
        assert "permissions requested are not granted" in a_token(github, {"checks": "write"})
        assert "does not exist or is not accessible" in a_token(github, {"issues": "read"}, "other")

    def test_the_app_sees_its_slug_and_the_permissions_of_its_installation(
        self, github: GitHubStandIn, client: Client
    ) -> None:
        app = client(token=an_app_jwt())
        assert app.get("/app").json()["slug"] == "labrats-test"
        installation = app.get(f"{DEMO}/installation").json()
        assert app.get(f"/app/installations/{installation['id']}").json()["permissions"] == github.access.permissions

    def test_a_personal_token_writes_no_check_runs(self, github: GitHubStandIn, client: Client, issue: Issue) -> None:
        github.access.add_person("ghp_test_token", "maintainer")
        person = client(token="ghp_test_token")
        head = github.demo.git.resolve("main")
        assert person.get("/user").json()["login"] == "maintainer"
        refused = person.post(f"{DEMO}/check-runs", json={"name": "a", "head_sha": head})
        assert (refused.status_code, refused.json()["message"]) == (403, "You must authenticate via a GitHub App.")
        assert person.post(f"{DEMO}/statuses/{head}", json={"state": "success"}).status_code == 201
        comment = person.post(f"{DEMO}/issues/1/comments", json={"body": "Hi"}).json()
        assert (comment["user"]["type"], comment["performed_via_github_app"]) == ("User", None)

    def test_an_expired_token_is_refused(self, github: GitHubStandIn, bot: httpx2.Client) -> None:
        github.access.revoke_all()
        assert (bot.get(DEMO).status_code, bot.get(DEMO).json()["message"]) == (401, "Bad credentials")


class TestIssues:
    def test_a_comment_belongs_to_the_bot_of_the_app(
        self, github: GitHubStandIn, bot: httpx2.Client, issue: Issue
    ) -> None:
        comment = bot.post(f"{DEMO}/issues/1/comments", json={"body": "On it."}).json()
        assert (comment["user"]["login"], comment["user"]["type"]) == (APP_LOGIN, "Bot")
        assert comment["performed_via_github_app"]["slug"] == "labrats-test"
        path = f"{DEMO}/issues/comments/{comment['id']}"
        assert bot.patch(path, json={"body": "Done."}).json()["body"] == bot.get(path).json()["body"] == "Done."
        assert github.comments_of(issue)[0]["body"] == "Done."
        assert bot.delete(path).status_code == 204
        assert bot.get(path).status_code == 404

    def test_lists_are_paged_with_links(self, github: GitHubStandIn, bot: httpx2.Client, issue: Issue) -> None:
        for number in range(5):
            github.demo.comment(issue, f"comment {number}")
        found, url = [], f"{DEMO}/issues/1/comments?per_page=2"
        while url:
            answer = bot.get(url)
            found.append([comment["body"] for comment in answer.json()])
            url = answer.links.get("next", {}).get("url", "")
        assert found == [["comment 0", "comment 1"], ["comment 2", "comment 3"], ["comment 4"]]

    def test_an_equal_reaction_is_created_once(self, bot: httpx2.Client, issue: Issue) -> None:
        comment = issue.repository.comment(issue, "/labrats run")
        for path in (f"{DEMO}/issues/1/reactions", f"{DEMO}/issues/comments/{comment['id']}/reactions"):
            answers = [bot.post(path, json={"content": "eyes"}) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [201, 200]
            assert len(bot.get(path).json()) == 1
            assert bot.delete(f"{path}/{answers[0].json()['id']}").status_code == 204
            assert bot.get(path).json() == []

    def test_a_missing_label_cannot_be_removed(self, bot: httpx2.Client, issue: Issue) -> None:
        bot.post(f"{DEMO}/issues/1/labels", json={"labels": ["ai-working"]})
        assert [label["name"] for label in bot.get(f"{DEMO}/issues/1/labels").json()] == ["ai-working"]
        answers = [bot.delete(f"{DEMO}/issues/1/labels/ai-working") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 404]
        assert bot.post(f"{DEMO}/labels", json={"name": "ai-working"}).status_code == 422

    @pytest.mark.parametrize(("state", "status"), [("locked", 403), ("deleted", 410)])
    def test_a_locked_or_deleted_issue_takes_no_comment(
        self, bot: httpx2.Client, issue: Issue, state: str, status: int
    ) -> None:
        setattr(issue, state, True)
        assert bot.post(f"{DEMO}/issues/1/comments", json={"body": "Hi"}).status_code == status
        assert issue.comments == []

    def test_a_body_that_is_too_long_is_refused(self, bot: httpx2.Client, issue: Issue) -> None:
        assert bot.post(f"{DEMO}/issues/1/comments", json={"body": "x" * 65_537}).status_code == 422


class TestChecks:
    def test_annotations_are_added_to_the_earlier_ones(self, github: GitHubStandIn, bot: httpx2.Client) -> None:
        head = github.demo.git.resolve("main")
        run = bot.post(f"{DEMO}/check-runs", json={"name": "labrats", "head_sha": head, "external_id": "ir-1"}).json()
        assert (run["status"], run["app"]["slug"]) == ("queued", "labrats-test")
        annotation = {"path": "a", "start_line": 1, "end_line": 1, "annotation_level": "notice", "message": "b"}
        output = {"title": "A", "summary": "B", "annotations": [annotation] * 50}
        for _ in range(2):
            run = bot.patch(f"{DEMO}/check-runs/{run['id']}", json={"conclusion": "success", "output": output}).json()
        assert (run["status"], run["output"]["annotations_count"]) == ("completed", 100)
        annotations = bot.get(f"{DEMO}/check-runs/{run['id']}/annotations", params={"per_page": 100}).json()
        assert len(annotations) == 100

    @pytest.mark.parametrize("change", [{"annotations": [{}] * 51}, {"text": "x" * 65_536}])
    def test_an_output_over_githubs_limits_is_a_violation(
        self, github: GitHubStandIn, bot: httpx2.Client, change: Any
    ) -> None:
        output = {"title": "A", "summary": "B"} | change
        body = {"name": "a", "head_sha": github.demo.git.resolve("main"), "output": output}
        assert bot.post(f"{DEMO}/check-runs", json=body).status_code == 400
        assert github.violations
        github.violations.clear()

    def test_the_list_shows_the_latest_run_of_a_name(self, github: GitHubStandIn, bot: httpx2.Client) -> None:
        head = github.demo.git.resolve("main")
        for name, external_id in (("one", "a"), ("one", "b"), ("two", "c")):
            bot.post(f"{DEMO}/check-runs", json={"name": name, "head_sha": head, "external_id": external_id})

        def listed(**query: str) -> list[str]:
            runs = bot.get(f"{DEMO}/commits/{head}/check-runs", params=query).json()["check_runs"]
            return [run["external_id"] for run in runs]

        assert listed() == ["c", "b"]
        assert listed(filter="all", check_name="one", app_id=APP_ID) == ["b", "a"]
        assert listed(app_id="1") == []

    def test_no_check_run_is_created_for_an_unknown_commit(self, bot: httpx2.Client) -> None:
        answer = bot.post(f"{DEMO}/check-runs", json={"name": "a", "head_sha": "0" * 40})
        assert answer.status_code == 422


class TestFaults:
    def test_a_lost_answer_has_acted(self, github: GitHubStandIn, bot: httpx2.Client, issue: Issue) -> None:
        github.faults.plan(LOST, "POST /repos/{owner}/{repo}/issues/{issue_number}/comments")
        with pytest.raises(httpx2.RemoteProtocolError):
            bot.post(f"{DEMO}/issues/1/comments", json={"body": "Hi"})
        assert len(github.comments_of(issue)) == 1

    @pytest.mark.parametrize(
        ("fault", "status", "message"),
        [
            (UNAVAILABLE, 502, "Server Error"),
            (Fault.forbidden(), 403, "Resource not accessible by integration"),
            (Fault.gone(), 410, "This issue was deleted"),
            (Fault.rejected("Line could not be resolved"), 422, "Unprocessable Entity"),
            (Fault.secondary_limit(7, 429), 429, "secondary rate limit"),
            (Fault.primary_limit(2_000_000_000), 403, "API rate limit exceeded"),
        ],
    )
    def test_an_error_has_not_acted(
        self, github: GitHubStandIn, bot: httpx2.Client, issue: Issue, fault: Fault, status: int, message: str
    ) -> None:
        github.faults.plan(fault, skip=1)
        answers = [bot.post(f"{DEMO}/issues/1/comments", json={"body": f"{n}"}) for n in range(3)]
        assert [answer.status_code for answer in answers] == [201, status, 201]
        assert message in answers[1].json()["message"]
        assert {name: answers[1].headers[name] for name in fault.headers} == fault.headers
        assert [comment["body"] for comment in issue.comments] == ["0", "2"]

    def test_a_late_answer_waits_for_the_test(self, github: GitHubStandIn, bot: httpx2.Client, issue: Issue) -> None:
        github.faults.plan(Fault(release=(release := threading.Event())))
        with pytest.raises(httpx2.ReadTimeout):
            bot.post(f"{DEMO}/issues/1/comments", json={"body": "Hi"}, timeout=0.05)
        release.set()
        assert len(github.comments_of(issue)) == 1

    def test_equal_seeds_give_equal_faults(self, github: GitHubStandIn, bot: httpx2.Client) -> None:
        def statuses() -> list[int]:
            github.faults.randomly(seed=7, share=0.5, choices=[UNAVAILABLE])
            return [bot.get(DEMO).status_code for _ in range(20)]

        first = statuses()
        assert set(first) == {200, 502}
        assert statuses() == first

    def test_writes_over_the_limit_get_the_secondary_limit(
        self, github: GitHubStandIn, bot: httpx2.Client, issue: Issue
    ) -> None:
        github.limit_writes(2, seconds=60)
        answers = [bot.post(f"{DEMO}/issues/1/comments", json={"body": "Hi"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 403]
        assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
        assert bot.get(DEMO).status_code == 200

    def test_lists_lag_behind_writes(self, github: GitHubStandIn, bot: httpx2.Client, issue: Issue) -> None:
        github.world.lag_seconds = 3600
        comment = bot.post(f"{DEMO}/issues/1/comments", json={"body": "Hi"}).json()
        assert bot.get(f"{DEMO}/issues/1/comments").json() == []
        assert bot.get(f"{DEMO}/issues/comments/{comment['id']}").json()["body"] == "Hi"
        github.world.lag_seconds = 0
        assert [each["id"] for each in bot.get(f"{DEMO}/issues/1/comments").json()] == [comment["id"]]

    def test_hooks_run_around_each_call(self, github: GitHubStandIn, bot: httpx2.Client, issue: Issue) -> None:
        seen: list[tuple[str, int, int]] = []
        github.before_call = lambda number: seen.append(("before", number, len(issue.comments)))
        github.after_call = lambda number: seen.append(("after", number, len(issue.comments)))
        bot.post(f"{DEMO}/issues/1/comments", json={"body": "Hi"})
        number = len(github.calls)
        assert seen == [("before", number, 0), ("after", number, 1)]

    def test_the_record_has_each_call_in_order(self, github: GitHubStandIn, bot: httpx2.Client, issue: Issue) -> None:
        bot.get(f"{DEMO}/issues/1")
        bot.post(f"{DEMO}/issues/1/comments", json={"body": "Hi"})
        (call,) = github.calls_of("POST /repos/{owner}/{repo}/issues/{issue_number}/comments")
        assert (call.body, call.actor.permissions, call.status) == ({"body": "Hi"}, WRITES, 201)
        assert call.at <= time.monotonic()
        assert github.writes() == [call]
        assert [call.number for call in github.calls] == list(range(1, len(github.calls) + 1))
