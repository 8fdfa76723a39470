"""The names of Secrets."""

import httpx2

from labrats.model.core_resources import JOB_CREDENTIALS, Secret
from labrats.model.record import Metadata
from tests.api.conftest import Api


async def test_secrets_are_listed_without_their_values(api: Api, admin: httpx2.AsyncClient) -> None:
    for name, labels in (("plain", {}), ("labelled", JOB_CREDENTIALS)):
        data = {"OPENAI_API_KEY": "test-value", "auth.json": "test-value"}
        await api.store.create(Secret(metadata=Metadata(name=name, labels=dict(labels)), data=data))

    answer = await admin.get("/api/secrets")

    keys = ["OPENAI_API_KEY", "auth.json"]
    assert answer.json() == {
        "secrets": [
            {"name": "labelled", "keys": keys, "problem": None},
            {"name": "plain", "keys": keys, "problem": None},
        ]
    }
    assert "test-value" not in answer.text
