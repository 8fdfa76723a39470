"""A caller cannot make the exposition grow without end."""

import httpx2

from labrats.metrics import MAX_VALUES, BoundedLabel
from tests.api.conftest import Api, a_submission
from tests.waiting import eventually


def test_a_label_tells_so_many_values_apart_and_no_more() -> None:
    label = BoundedLabel()

    first = [label(f"value-{number}") for number in range(MAX_VALUES)]

    assert first == [f"value-{number}" for number in range(MAX_VALUES)]
    assert label("one-more") == "other"
    assert label("value-0") == "value-0"


async def test_types_and_models_that_callers_make_up_are_bounded(api: Api, user: httpx2.AsyncClient) -> None:
    count = MAX_VALUES + 20
    for number in range(count):
        config = {"provider": "mock", "model": f"model-{number}"}
        await user.post("/api/jobs/submit", json=a_submission(type=f"type-{number}", config=config))
    await eventually(lambda: sum(row.count for row in api.engine.cache.counts()) == count)

    text = (await user.get("/metrics")).text

    for label, name in (("type", "type"), ("model", "model")):
        assert f'{label}="{name}-0"' in text
        assert f'{label}="{name}-{MAX_VALUES - 1}"' in text
        assert f'{label}="{name}-{MAX_VALUES}"' not in text
        assert f'{label}="other"' in text
