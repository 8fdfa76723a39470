"""Redaction of the engine's own secrets in the output of attempts."""

import base64

from tests.acceptance.conftest import EngineFactory

SUBMIT_KEY = "test-submit-key-0123456789"


async def test_engine_keys_printed_by_an_agent_are_redacted(start_program: EngineFactory) -> None:
    engine = start_program(SUBMIT_API_KEYS=SUBMIT_KEY)
    keys = [SUBMIT_KEY, engine.admin_key]
    forms = [form for key in keys for form in (key, base64.b64encode(key.encode()).decode())]
    async with engine.user() as user:
        job = await user.run(*({"log": form} for form in forms), {"result": forms})
        lines = await user.log_lines(job["id"])

    assert [line.startswith("[redacted]") for line in lines] == [True] * len(forms)
    assert not any(form in str((job["result"], job["logs"], lines)) for form in forms)
    assert list(engine.data_dir.glob("attempts/*/*/secrets/*")) == []
