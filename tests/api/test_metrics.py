"""Callers cannot make the metrics grow without limit."""

import httpx2

from labrats.metrics import MAX_MODELS, MAX_TYPES, BoundedLabels
from labrats.model.phases import Phase
from tests.api.conftest import Api, a_submission
from tests.support.waiting import eventually


def test_label_sets_beyond_the_limit_become_other() -> None:
    labels = BoundedLabels(3)
    assert [labels("mock", str(number)) for number in range(3)] == [("mock", "0"), ("mock", "1"), ("mock", "2")]
    assert labels("mock", "3") == ("mock", "other")
    assert labels("mock", "0") == ("mock", "0")


async def test_types_and_models_from_callers_are_limited(api: Api, user: httpx2.AsyncClient) -> None:
    count = MAX_TYPES + 20
    for number in range(count):
        config = {"provider": "mock", "model": f"model-{number}"}
        await user.post("/api/jobs/submit", json=a_submission(type=f"type-{number}", config=config))
    await eventually(lambda: sum(map(api.services.job_index.count_in, Phase)) == count)

    text = (await user.get("/metrics")).text

    for label, most in (("type", MAX_TYPES), ("model", MAX_MODELS)):
        assert f'{label}="{label}-0"' in text
        assert f'{label}="{label}-{most - 1}"' in text
        assert f'{label}="{label}-{most}"' not in text
        assert f'{label}="other"' in text
    assert text.count("\n") < 4000
