"""Pull requests, reviews and git data of the stand-in for GitHub."""

import os
import subprocess
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.github.conftest import Client, a_token
from tests.support.github import Fault, GitHubStandIn, Issue
from tests.support.github.faults import LOST

DEMO: Final = "/repos/octo/demo"
THREADS: Final = """
query($number: Int!) {
  repository(owner: "octo", name: "demo") {
    pullRequest(number: $number) {
      id isDraft
      reviewThreads(first: 50) {
        nodes {
          id isResolved isOutdated path line
          comments(first: 10) { nodes { databaseId body author { login __typename } } }
        }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}
"""
RESOLVE: Final = "mutation($id: ID!) { resolveReviewThread(input: {threadId: $id}) { thread { isResolved } } }"


def comment_at(path: str = "long.txt", line: int | None = 20, **fields: Any) -> dict[str, Any]:
    return {"path": path, "line": line, "body": "This is wrong."} | fields


def review(*comments: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"event": "COMMENT", "body": "Findings", "comments": list(comments)} | fields


def graphql(bot: httpx2.Client, query: str, **variables: Any) -> Any:
    return bot.post("/graphql", json={"query": query, "variables": variables}).json()


def threads_of(bot: httpx2.Client, pull: Issue) -> list[dict[str, Any]]:
    answer = graphql(bot, THREADS, number=pull.number)
    return list(answer["data"]["repository"]["pullRequest"]["reviewThreads"]["nodes"])


class TestPulls:
    def test_a_pull_request_is_found_by_its_head(self, github: GitHubStandIn, bot: httpx2.Client) -> None:
        head = github.demo.git.commit({"a": "b"}, "labrats/fixer/7")
        body = {"title": "Fix it", "head": "labrats/fixer/7", "base": "main", "draft": True, "body": "Fixes #1"}
        created = bot.post(f"{DEMO}/pulls", json=body).json()
        assert (created["draft"], created["head"]["sha"], created["changed_files"]) == (True, head, 1)
        (found,) = bot.get(f"{DEMO}/pulls", params={"head": "octo:labrats/fixer/7", "state": "all"}).json()
        assert found["number"] == created["number"]
        assert bot.get(f"{DEMO}/pulls", params={"head": "octo:other"}).json() == []
        assert [issue.number for issue in github.pulls_of(github.demo, "labrats/fixer/7")] == [created["number"]]

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"head": "fix"}, "A pull request already exists for octo:fix."),
            ({"head": "same"}, "No commits between main and same"),
            ({"head": "nothing"}, ""),
            ({"head": "fix", "base": "nothing"}, ""),
        ],
    )
    def test_an_impossible_pull_request_is_refused(
        self, github: GitHubStandIn, bot: httpx2.Client, pull: Issue, body: dict[str, str], message: str
    ) -> None:
        github.demo.git.git("branch", "same", "main")
        answer = bot.post(f"{DEMO}/pulls", json={"title": "Fix it", "base": "main"} | body)
        assert (answer.status_code, answer.json()["errors"][0].get("message", "")) == (422, message)

    def test_a_push_moves_the_head(self, github: GitHubStandIn, bot: httpx2.Client, pull: Issue) -> None:
        head = github.demo.git.commit({"more.txt": "more"}, "fix")
        assert bot.get(f"{DEMO}/pulls/{pull.number}").json()["head"]["sha"] == head

    def test_the_pull_request_of_a_fork_shows_the_forks_commits(
        self, github: GitHubStandIn, bot: httpx2.Client
    ) -> None:
        fork = github.add_repository("stranger/demo", fork_of=github.demo)
        head = fork.git.commit({"theirs.txt": "theirs"}, "idea")
        created = bot.post(f"{DEMO}/pulls", json={"title": "Idea", "head": "stranger:idea", "base": "main"}).json()
        assert (created["head"]["sha"], created["head"]["repo"]["full_name"]) == (head, "stranger/demo")
        files = bot.get(f"{DEMO}/pulls/{created['number']}/files").json()
        assert [file["filename"] for file in files] == ["theirs.txt"]

    def test_the_files_have_the_hunks_of_git(self, bot: httpx2.Client, pull: Issue) -> None:
        files = {file["filename"]: file for file in bot.get(f"{DEMO}/pulls/{pull.number}/files").json()}
        assert files["long.txt"]["patch"].startswith("@@ -17,7 +17,7 @@")
        assert (files["long.txt"]["additions"], files["long.txt"]["deletions"]) == (2, 2)
        assert (files["new.txt"]["status"], files["new.txt"]["patch"]) == ("added", "@@ -0,0 +1,2 @@\n+one\n+two")

    def test_reviewers_must_be_collaborators_and_not_the_author(self, bot: httpx2.Client, pull: Issue) -> None:
        path = f"{DEMO}/pulls/{pull.number}/requested_reviewers"
        statuses = [bot.post(path, json={"reviewers": [login]}).status_code for login in ("octo", "nobody", "reviewer")]
        assert statuses == [422, 422, 201]
        assert [user["login"] for user in bot.get(path).json()["users"]] == ["reviewer"]

    def test_drafts_change_by_mutations(self, bot: httpx2.Client, pull: Issue) -> None:
        found = graphql(bot, THREADS, number=pull.number)["data"]["repository"]["pullRequest"]
        for mutation, is_draft in (("convertPullRequestToDraft", True), ("markPullRequestReadyForReview", False)):
            query = (
                f"mutation($id: ID!) {{ {mutation}(input: {{pullRequestId: $id}}) {{ pullRequest {{ isDraft }} }} }}"
            )
            answer = graphql(bot, query, id=found["id"])
            assert answer["data"][mutation]["pullRequest"]["isDraft"] is is_draft


class TestReviews:
    def test_a_review_has_its_comments_at_their_lines(self, bot: httpx2.Client, pull: Issue) -> None:
        comments = [comment_at(line=23, start_line=17), comment_at(side="LEFT"), comment_at("new.txt", 2)]
        answer = bot.post(f"{DEMO}/pulls/{pull.number}/reviews", json=review(*comments))
        assert (answer.status_code, answer.json()["state"]) == (200, "COMMENTED")
        listed = bot.get(f"{DEMO}/pulls/{pull.number}/comments").json()
        assert [(each["path"], each["line"], each["side"]) for each in listed] == [
            ("long.txt", 23, "RIGHT"),
            ("long.txt", 20, "LEFT"),
            ("new.txt", 2, "RIGHT"),
        ]

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (comment_at(line=16), "Line could not be resolved"),
            (comment_at(line=24), "Line could not be resolved"),
            (comment_at(line=None), "Line could not be resolved"),
            (comment_at("new.txt", 1, side="LEFT"), "Line could not be resolved"),
            (comment_at("README.md", 1), "Path could not be resolved"),
            (comment_at(line=36, start_line=20), "Pull request review thread start line must be part of the same hunk"),
            (comment_at(line=20, start_line=20), "Pull request review thread start line must precede"),
        ],
    )
    def test_one_bad_anchor_refuses_the_whole_review(
        self, github: GitHubStandIn, bot: httpx2.Client, pull: Issue, bad: dict[str, Any], error: str
    ) -> None:
        bad = {key: value for key, value in bad.items() if value is not None}
        answer = bot.post(f"{DEMO}/pulls/{pull.number}/reviews", json=review(comment_at(), bad))
        assert answer.status_code == 422
        assert answer.json()["errors"][0].startswith(error)
        assert bot.get(f"{DEMO}/pulls/{pull.number}/reviews").json() == []
        assert bot.get(f"{DEMO}/pulls/{pull.number}/comments").json() == []

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ({"event": "COMMENT"}, "Body can't be blank"),
            ({"event": "COMMENT", "body": "A", "commit_id": "0" * 40}, "commit_id is not part of the pull request"),
        ],
    )
    def test_a_review_without_content_or_of_another_commit_is_refused(
        self, bot: httpx2.Client, pull: Issue, body: dict[str, Any], error: str
    ) -> None:
        answer = bot.post(f"{DEMO}/pulls/{pull.number}/reviews", json=body)
        assert answer.status_code == 422
        assert error in answer.json()["errors"][0]

    def test_nobody_approves_their_own_pull_request(self, github: GitHubStandIn, bot: httpx2.Client) -> None:
        github.demo.git.commit({"a": "b"}, "own")
        own = bot.post(f"{DEMO}/pulls", json={"title": "A", "head": "own", "base": "main"}).json()
        answer = bot.post(f"{DEMO}/pulls/{own['number']}/reviews", json={"event": "APPROVE"})
        assert (answer.status_code, answer.json()["errors"]) == (422, ["Review Can not approve your own pull request"])

    def test_a_thread_follows_its_line_and_is_outdated_when_it_changes(
        self, github: GitHubStandIn, bot: httpx2.Client, pull: Issue
    ) -> None:
        bot.post(f"{DEMO}/pulls/{pull.number}/reviews", json=review(comment_at()))
        text = github.demo.git.text_of("fix", "long.txt") + "\n"
        github.demo.git.commit({"long.txt": f"before\n{text}"}, "fix")
        assert [(each["line"], each["isOutdated"]) for each in threads_of(bot, pull)] == [(21, False)]
        github.demo.git.commit({"long.txt": text.replace("changed", "changed again", 1)}, "fix")
        assert [(each["line"], each["isOutdated"]) for each in threads_of(bot, pull)] == [(None, True)]

    def test_resolving_a_thread_needs_the_right_to_write_contents(
        self, client: Client, bot: httpx2.Client, pull: Issue
    ) -> None:
        bot.post(f"{DEMO}/pulls/{pull.number}/reviews", json=review(comment_at()))
        (thread,) = threads_of(bot, pull)
        assert thread["comments"]["nodes"][0]["author"] == {"login": "labrats-test", "__typename": "Bot"}
        refused = graphql(client({"pull_requests": "write", "contents": "read"}), RESOLVE, id=thread["id"])
        assert refused["errors"][0]["type"] == "FORBIDDEN"
        assert not threads_of(bot, pull)[0]["isResolved"]
        assert graphql(bot, RESOLVE, id=thread["id"])["data"]["resolveReviewThread"]["thread"]["isResolved"]
        assert graphql(bot, RESOLVE, id="PRRT_1")["errors"][0]["type"] == "NOT_FOUND"

    def test_replies_belong_to_the_thread_of_their_comment(self, bot: httpx2.Client, pull: Issue) -> None:
        bot.post(f"{DEMO}/pulls/{pull.number}/reviews", json=review(comment_at()))
        (first,) = bot.get(f"{DEMO}/pulls/{pull.number}/comments").json()
        path = f"{DEMO}/pulls/{pull.number}/comments/{first['id']}/replies"
        assert bot.post(path, json={"body": "Fixed."}).status_code == 201
        (thread,) = threads_of(bot, pull)
        assert [each["body"] for each in thread["comments"]["nodes"]] == ["This is wrong.", "Fixed."]


class TestRefs:
    def test_refs_are_created_moved_and_compared(self, github: GitHubStandIn, bot: httpx2.Client) -> None:
        main = github.demo.git.resolve("main")
        assert bot.post(f"{DEMO}/git/refs", json={"ref": "refs/heads/labrats/7", "sha": main}).status_code == 201
        assert bot.post(f"{DEMO}/git/refs", json={"ref": "refs/heads/labrats/7", "sha": main}).status_code == 422
        newer = github.demo.git.commit({"a": "b"}, "scratch")
        assert bot.patch(f"{DEMO}/git/refs/heads/labrats/7", json={"sha": newer}).status_code == 200
        assert bot.get(f"{DEMO}/branches/labrats/7").json()["commit"]["sha"] == newer
        back = bot.patch(f"{DEMO}/git/refs/heads/labrats/7", json={"sha": main})
        assert (back.status_code, back.json()["message"]) == (422, "Update is not a fast forward")
        compared = bot.get(f"{DEMO}/compare/main...labrats/7").json()
        assert (compared["status"], compared["ahead_by"], compared["files"][0]["filename"]) == ("ahead", 1, "a")
        behind = bot.get(f"{DEMO}/compare/{newer}...{main}", params={"per_page": 1, "page": 2}).json()
        assert (behind["status"], behind["behind_by"], "files" in behind) == ("behind", 1, False)
        identity = ("-c", "user.name=Octo", "-c", "user.email=octo@example.com")
        unrelated = github.demo.git.git(*identity, "commit-tree", f"{main}^{{tree}}", "-m", "Start")
        assert bot.get(f"{DEMO}/compare/main...{unrelated}").status_code == 404
        assert bot.delete(f"{DEMO}/git/refs/heads/labrats/7").status_code == 204
        assert bot.get(f"{DEMO}/git/ref/heads/labrats/7").status_code == 404

    def test_a_protected_branch_is_not_moved(self, github: GitHubStandIn, bot: httpx2.Client) -> None:
        newer = github.demo.git.commit({"a": "b"}, "scratch")
        github.demo.git.protect("main")
        assert bot.patch(f"{DEMO}/git/refs/heads/main", json={"sha": newer}).status_code == 422


class TestGit:
    """git itself as the client."""

    @pytest.fixture
    def clone(self, github: GitHubStandIn, tmp_path: Path) -> Path:
        run_git(tmp_path, "clone", "-q", "--depth=1", address(github, {"contents": "write"}), "demo")
        return tmp_path / "demo"

    def test_a_clone_and_a_push_need_only_contents(self, github: GitHubStandIn, clone: Path) -> None:
        (clone / "large.bin").write_bytes(os.urandom(3_000_000))
        head = commit_all(clone)
        run_git(clone, "push", "-q", "origin", "HEAD:refs/heads/labrats/7")
        assert github.demo.git.resolve("refs/heads/labrats/7") == head
        assert {call.template for call in github.calls if call.template.startswith("git-")} == {
            "git-upload-pack",
            "git-receive-pack",
        }

    @pytest.mark.parametrize("permissions", [{"contents": "read"}, {"issues": "write"}])
    def test_a_push_without_the_permission_is_refused(
        self, github: GitHubStandIn, clone: Path, permissions: dict[str, str]
    ) -> None:
        commit_all(clone)
        with pytest.raises(subprocess.CalledProcessError, match="403"):
            run_git(clone, "push", "-q", address(github, permissions), "HEAD:refs/heads/labrats/7")

    def test_a_private_repository_is_not_cloned_without_a_token(self, github: GitHubStandIn, tmp_path: Path) -> None:
        with pytest.raises(subprocess.CalledProcessError, match="could not read Username"):
            run_git(tmp_path, "clone", "-q", github.demo.clone_url, "demo")
        github.demo.private = False
        run_git(tmp_path, "clone", "-q", github.demo.clone_url, "demo")

    def test_a_protected_branch_takes_no_push(self, github: GitHubStandIn, clone: Path) -> None:
        github.demo.git.protect("main")
        commit_all(clone)
        with pytest.raises(subprocess.CalledProcessError, match="GH006"):
            run_git(clone, "push", "origin", "HEAD:main")

    def test_a_workflow_needs_the_permission_for_workflows(self, github: GitHubStandIn, clone: Path) -> None:
        (clone / ".github/workflows").mkdir(parents=True)
        (clone / ".github/workflows/ci.yml").write_text("on: push\n")
        commit_all(clone)
        with pytest.raises(subprocess.CalledProcessError, match="without `workflows` permission"):
            run_git(clone, "push", "origin", "HEAD:refs/heads/labrats/7")
        github.access.permissions["workflows"] = "write"
        allowed = address(github, {"contents": "write", "workflows": "write"})
        run_git(clone, "push", allowed, "HEAD:refs/heads/labrats/7")

    def test_a_non_fast_forward_is_refused_when_the_test_says_so(self, github: GitHubStandIn, clone: Path) -> None:
        github.demo.git.refuse_non_fast_forward()
        run_git(clone, *COMMIT, "--amend")
        with pytest.raises(subprocess.CalledProcessError, match="non-fast-forward"):
            run_git(clone, "push", "--force", "origin", "HEAD:main")

    def test_a_push_whose_answer_is_lost_has_moved_the_branch(self, github: GitHubStandIn, clone: Path) -> None:
        head = commit_all(clone)
        github.faults.plan(LOST, "POST git-receive-pack")
        with pytest.raises(subprocess.CalledProcessError):
            run_git(clone, "push", "origin", "HEAD:refs/heads/labrats/7")
        assert github.demo.git.resolve("refs/heads/labrats/7") == head
        github.faults.plan(Fault(503), "GET info/refs")
        with pytest.raises(subprocess.CalledProcessError, match="503"):
            run_git(clone, "fetch")


COMMIT: Final = ("-c", "user.name=Octo", "-c", "user.email=octo@example.com", "commit", "-q", "-m", "A change")


def address(github: GitHubStandIn, permissions: dict[str, str]) -> str:
    token = a_token(github, permissions)
    return github.demo.clone_url.replace("http://", f"http://x-access-token:{token}@")


def commit_all(clone: Path) -> str:
    """Commit everything, also without a change, and return the commit."""
    run_git(clone, "add", "--all")
    run_git(clone, *COMMIT, "--allow-empty")
    return run_git(clone, "rev-parse", "HEAD")


def run_git(folder: Path, *arguments: str) -> str:
    """Run git without the machine's configuration. Raises CalledProcessError, which shows what git printed."""
    environment = {"PATH": os.environ["PATH"], "GIT_TERMINAL_PROMPT": "0", "HOME": str(folder), "LC_ALL": "C"}
    ended = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise subprocess.CalledProcessError(ended.returncode, f"git {arguments[0]}: {ended.stderr}")
    return ended.stdout.strip()
