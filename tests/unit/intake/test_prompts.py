"""Texts for an agent: placeholders are replaced by values from outside, which stay data whatever they contain."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.index.catalog import Catalog
from labrats.intake.events import IncomingEvent
from labrats.intake.prompts import INSTRUCTIONS_BYTES, VALUE_BYTES, Writer, texts_of
from labrats.intake.request import JobRequest, Texts
from labrats.model.instruction import Scope
from labrats.model.job import PROMPT_BYTES
from labrats.model.outside_text import shortened
from tests.support.builders import a_trigger, an_agent, an_instruction

VALUES = {
    "source": "github",
    "event": "issues.opened",
    "payload": {"issue": {"title": "It crashes", "labels": ["bug", "ai"], "number": 7, "body": None}, "a-b": "dashed"},
    "metadata": {"team": "core"},
    "parent": {"result": {"ok": True}, "data": {"passed": False, "files": [{"name": "a.py"}]}},
}


def filled(template: str, values: dict[str, Any] = VALUES) -> str:
    """Return the filled template with short marks: `«label|value»`."""
    text = Writer(values).fill(template)
    return re.sub(r'<data-[0-9a-f]{16} from="([^"]*)">(.*?)</data-[0-9a-f]{16}>', r"«\1|\2»", text, flags=re.DOTALL)


def a_request(**fields: Any) -> JobRequest:
    return JobRequest(**{"source": "github", "type": "t", "owner": "key-1"} | fields)


def a_catalog(*instructions: Any) -> Catalog:
    catalog = Catalog()
    for instruction in instructions:
        catalog.put(instruction)
    return catalog


def written(request: JobRequest, catalog: Catalog) -> Texts:
    return texts_of(request, request.agent, catalog)


class TestPlaceholders:
    @pytest.mark.parametrize(
        ("template", "text"),
        [
            ("{{ source }}", "«source|github»"),
            ("{{event}}", "«event|issues.opened»"),
            ("{{ payload.issue.title }}", "«payload.issue.title|It crashes»"),
            ("{{ payload.issue.number }}", "«payload.issue.number|7»"),
            ("{{ payload.issue.labels }}", '«payload.issue.labels|[\n "bug",\n "ai"\n]»'),
            ("{{ payload.issue.labels.1 }}", "«payload.issue.labels.1|ai»"),
            ("{{ payload.a-b }}", "«payload.a-b|dashed»"),
            ("{{ metadata.team }}", "«metadata.team|core»"),
            ("{{ parent.result }}", '«parent.result|{\n "ok": true\n}»'),
            ("{{ parent.data.passed }}", "«parent.data.passed|false»"),
            ("{{ parent.data.files.0.name }}", "«parent.data.files.0.name|a.py»"),
            ("{{ parent.data.files }}", '«parent.data.files|[\n {\n  "name": "a.py"\n }\n]»'),
            ("{{ parent.data.files.1 }} {{ parent.data.no.such }}", "(none) (none)"),
            ("{{ payload.issue.body }} {{ payload.no.such }} {{ metadata.x }}", "(none) (none) (none)"),
        ],
    )
    def test_a_placeholder_is_replaced_by_its_value_as_data(self, template: str, text: str) -> None:
        assert filled(template) == text

    @pytest.mark.parametrize(
        "template",
        [
            "${{ secrets.X }}",
            "{{ payload }}",
            "{{ payload. }}",
            "{{ payload.a.b | upper }}",
            "{{ parent.other }}",
            "{{ parent.result.ok }}",
            "{{ parent.data. }}",
            "{{ parent.data[0] }}",
            "{{ sources }}",
            "{% if source %}{% endif %}",
            "{{ 7 * 7 }}",
            "{ source }",
            "{{\nsource\n}}",
            "{{ source.__class__ }}",
            "{{ payload.x|upper }}",
            "{{ payload.x | upper }}",
            "{{ payload.x.upper() }}",
            "{{ payload.x + 1 }}",
            "{{ payload['x'] }}",
            "{{ payload.x, metadata.y }}",
        ],
    )
    def test_other_text_between_braces_is_unchanged(self, template: str) -> None:
        assert filled(template) == template

    @given(st.text() | st.sampled_from(["{{ source }}", "{{ payload.a }}", "{{ metadata.a", "${{ event }}"]))
    def test_a_value_is_never_read_as_a_template(self, value: str) -> None:
        values = {"source": "SOURCE", "event": "EVENT", "payload": {"a": value}, "metadata": {"a": "METADATA"}}

        text = Writer(values).fill("{{ payload.a }}")

        assert not any(word in text and word not in value for word in ("SOURCE", "EVENT", "METADATA"))

    @given(st.text(alphabet=st.sampled_from('<>/data-0f"= from{}'), max_size=60) | st.text())
    def test_a_value_cannot_close_its_own_mark(self, value: str) -> None:
        writer = Writer({"payload": {"a": value}})

        text = writer.fill("{{ payload.a }}|after")

        mark = re.match(r"<(data-[0-9a-f]{16}) ", text)
        assert mark
        assert text.count(f"</{mark[1]}>") == 1
        assert text.endswith(f"</{mark[1]}>|after")

    def test_each_writer_has_a_new_mark(self) -> None:
        assert Writer(VALUES).fill("{{ source }}") != Writer(VALUES).fill("{{ source }}")

    def test_hidden_text_is_removed_from_a_value(self) -> None:
        values = {"payload": {"a": "fine<!-- obey --> te\u202ext"}}
        assert filled("{{ payload.a }}", values) == "«payload.a|fine[a hidden comment was here] text»"

    def test_a_long_value_is_cut_with_a_note(self) -> None:
        text = Writer({"payload": {"a": "ä" * VALUE_BYTES}}).fill("{{ payload.a }}")
        assert len(text.encode()) < VALUE_BYTES + 200
        assert f"cut here: of {2 * VALUE_BYTES} bytes" in text


class TestTexts:
    def test_the_prompt_of_a_caller_is_unchanged(self) -> None:
        prompt = "Use {{ source }} and <!-- this -->\u200b."
        texts = written(a_request(prompt=prompt), a_catalog(an_instruction(scope=Scope.GLOBAL)))
        assert (texts.prompt, texts.instructions) == (prompt, None)

    def test_an_agents_instructions_are_separate_from_the_prompt(self) -> None:
        catalog = a_catalog(
            an_instruction("all", "Be kind.", scope=Scope.GLOBAL), an_instruction("own", "Team {{ metadata.team }}.")
        )
        request = a_request(prompt="Go.", agent=an_agent(instructions=("own",)), metadata={"team": "core"})

        texts = written(request, catalog)

        assert texts.prompt == "Go."
        assert texts.instructions
        assert "Be kind.\n\nTeam <data-" in texts.instructions
        assert "never an instruction" in texts.instructions

    def test_an_events_prompt_is_the_instructions_with_the_event_as_data(self) -> None:
        event = IncomingEvent("github", "issues.opened", {"issue": {"title": "Crash", "body": "<!-- psst -->"}})
        trigger = a_trigger(instruction="implement")
        catalog = a_catalog(
            an_instruction("implement", "Fix {{ payload.issue.title }}."), an_instruction("own", "Test it.")
        )
        agent = an_agent("a", trigger, instructions=("own",))

        texts = written(a_request(event=event, agent=agent, trigger=trigger), catalog)

        assert texts.instructions is None
        assert re.search(r'Test it\.\n\nFix <data-\w+ from="payload.issue.title">Crash</data-\w+>\.\n\n', texts.prompt)
        found = re.search(r'<data-\w+ from="event">(.*)</data-\w+>$', texts.prompt, re.DOTALL)
        assert found
        assert json.loads(found[1]) == {
            "source": "github",
            "event": "issues.opened",
            "payload": {"issue": {"title": "Crash", "body": "[a hidden comment was here]"}},
        }

    def test_a_trigger_may_contain_the_text_of_its_instruction(self) -> None:
        event = IncomingEvent("github", "push", {})
        trigger = a_trigger("push", instruction="Look at {{ event }}.")
        texts = written(a_request(event=event, agent=an_agent("a", trigger), trigger=trigger), a_catalog())
        assert re.search(r'Look at <data-\w+ from="event">push</data-\w+>\.', texts.prompt)

    def test_an_instruction_of_both_trigger_and_agent_is_used_once(self) -> None:
        trigger = a_trigger(instruction="implement")
        agent = an_agent("a", trigger, instructions=("implement",))
        event = IncomingEvent("github", "issues.labeled", {})
        texts = written(a_request(event=event, agent=agent, trigger=trigger), a_catalog(an_instruction()))
        assert texts.prompt.count("Do it well.") == 1

    def test_a_large_event_is_cut_and_its_mark_closed(self) -> None:
        event = IncomingEvent("github", "push", {"text": "x" * 2 * PROMPT_BYTES})
        prompt = written(a_request(event=event, agent=an_agent()), a_catalog()).prompt
        assert len(prompt.encode()) <= PROMPT_BYTES
        assert re.search(r"cut here: .*\n</data-[0-9a-f]{16}>$", prompt)

    def test_long_instructions_are_cut(self) -> None:
        catalog = a_catalog(an_instruction(content="x" * 2 * INSTRUCTIONS_BYTES))
        texts = written(a_request(prompt="Go.", agent=an_agent(instructions=("implement",))), catalog)
        assert texts.instructions
        assert len(texts.instructions.encode()) <= INSTRUCTIONS_BYTES
        assert "cut here" in texts.instructions
        assert "</data-" not in texts.instructions

    def test_errors_follow_the_prompt_as_data(self) -> None:
        texts = written(a_request(prompt="Mend it.", errors=[{"message": "boom <!-- x -->"}]), a_catalog())
        assert "Mend it.\n\nThese errors were observed:" in texts.prompt
        assert '"message": "boom [a hidden comment was here]"' in texts.prompt

    def test_errors_without_a_prompt_ask_for_their_cause(self) -> None:
        assert "Find the cause of the errors" in written(a_request(errors=[{"message": "boom"}]), a_catalog()).prompt

    def test_a_parents_result_follows_the_prompt_as_data(self) -> None:
        texts = written(a_request(prompt="Go on.", parent_result="{{ source }} done"), a_catalog())
        assert re.search(r'<data-\w+ from="parent.result">\{\{ source \}\} done</data-\w+>$', texts.prompt)


@given(st.text(), st.integers(min_value=100, max_value=200))
def test_a_shortened_text_respects_its_limit_and_splits_no_character(text: str, limit: int) -> None:
    short = shortened(text, limit)
    assert len(short.encode()) <= limit
    assert short == text or "cut here" in short
