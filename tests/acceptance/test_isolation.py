"""Levels of isolation. The engine refuses a job whose level it does not have."""

import pytest

from tests.acceptance.engine import ENDED, Engine, User, a_submission


@pytest.fixture
def levels(request: pytest.FixtureRequest, engine: Engine) -> list[str]:
    """Return the engine's levels, the weakest first. Its default is the last one without `vm`."""
    return ["process", "sandbox"] if request.node.callspec.params["engine"] == "local" else ["container", "vm"]


LEVELS = ["process", "sandbox", "container", "vm"]


@pytest.mark.parametrize("level", LEVELS)
async def test_a_job_has_at_least_the_level_that_it_asks_for(user: User, levels: list[str], level: str) -> None:
    answer = await user.post("/api/jobs/submit", a_submission({"result": "done"}, config={"isolation": level}))
    default = "sandbox" if "sandbox" in levels else "container"
    wanted = max(level, default, key=LEVELS.index)
    if wanted not in levels:
        assert answer.status_code == 422
        assert answer.json()["details"][0]["field"] == "config.isolation"
        assert f"cannot be {level}: the levels here are process or sandbox" in answer.json()["error"]
        return
    assert answer.status_code == 201, answer.text
    job = await user.wait(answer.json()["jobId"], *ENDED)
    assert (job["status"], job["config"]["isolation"], job["isolation"]) == ("completed", level, wanted)


async def test_a_job_that_asks_for_no_level_has_the_engines_default(user: User, levels: list[str]) -> None:
    job = await user.run({"result": "done"})
    assert "isolation" not in job["config"]
    assert job["isolation"] == ("sandbox" if "sandbox" in levels else "container")
