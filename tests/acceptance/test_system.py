"""Facts about the engine, and the names of Secrets."""

from tests.acceptance.engine import User


async def test_system_page_shows_version_disk_and_limits(admin: User) -> None:
    system = (await admin.get("/api/system")).json()

    me = (await admin.get("/api/auth/me")).json()
    assert (system["version"], system["backend"]) == (me["version"], me["backend"])
    assert 0 < system["disk"]["freeBytes"] <= system["disk"]["totalBytes"]
    assert system["limits"]["promptBytes"] == 900 * 1024
    assert system["controller"]["alive"] is True


async def test_engines_own_secrets_and_those_of_jobs_are_not_listed(admin: User) -> None:
    repository = "https://octocat:test-token@github.com/octocat/hello.git"
    waiting = await admin.submit(workspaceSetup={"gitRepo": repository}, notBefore="2999-01-01T00:00:00Z")

    answer = await admin.get("/api/secrets")

    names = [each["name"] for each in answer.json()["secrets"]]
    own = ("key-", "ir-", "login-link", "ended-session")
    assert not [name for name in names if name.startswith(own)]
    assert "test-token" not in answer.text
    await admin.cancel(waiting)
