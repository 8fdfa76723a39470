"""Tests of the pipeline `pdf-sections`, with real PDFs and the mock provider."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.pdf_reader import MAX_PAGES
from labrats.model.config import JobConfig
from labrats.model.job import FailedCode, Pipeline, Usage, WorkspaceFile
from tests.support.pdfs import (
    Entry,
    Line,
    a_manual,
    a_pdf,
    an_inflating_page,
    deep_pages,
    encrypted,
    endless_outline,
    many_pages,
    without_outline,
)
from tests.unit.executor.attempts import AttemptFolder, an_attempt


def an_attempt_about(tmp_path: Path, pdf: bytes, steps: list[Any] | None = None, **fields: Any) -> AttemptFolder:
    (tmp_path / "document").write_bytes(pdf)
    file = WorkspaceFile(name="document.pdf", path=str(tmp_path / "document"), size=len(pdf))
    return an_attempt(tmp_path, steps, workspace_files=(file,), pipeline=Pipeline(type="pdf-sections"), **fields)


def read(tmp_path: Path, pdf: bytes) -> dict[str, Any]:
    attempt = an_attempt_about(tmp_path, pdf)
    assert attempt.run() == 0, attempt.outcome
    result: dict[str, Any] = attempt.result
    return result


def test_document_is_split_by_its_outline_even_within_a_page(tmp_path: Path) -> None:
    result = read(tmp_path, a_manual())

    assert result["title"] == "A manual"
    assert [(each["title"], each["level"], each["pageStart"], each["pageEnd"]) for each in result["sections"]] == [
        ("A manual", 1, 1, 1),
        ("One", 1, 2, 2),
        ("One, closer", 2, 2, 3),
        ("Two", 1, 3, 3),
    ]
    assert [each["text"] for each in result["sections"]] == [
        "The front page",
        "One\nWhat one says.",
        "One, closer\nDetails of one.\nMore details.",
        "Two\nWhat two says.",
    ]


def test_document_without_an_outline_is_split_at_taller_lines(tmp_path: Path) -> None:
    result = read(tmp_path, without_outline())

    assert [(each["title"], each["level"], each["pageStart"], each["pageEnd"]) for each in result["sections"]] == [
        ("Introduction", 1, 1, 1),
        ("Methods", 1, 2, 2),
        ("A detail", 2, 2, 2),
    ]
    assert result["sections"][1]["output"] is None, "a section with only a heading is skipped"


def test_document_without_headings_is_one_section(tmp_path: Path) -> None:
    result = read(tmp_path, a_pdf([[Line("Just text.", 700)], [Line("More text.", 700)]], title="Notes"))

    (section,) = result["sections"]
    assert (section["title"], section["pageEnd"], section["text"]) == ("Notes", 2, "Just text.\nMore text.")


def test_provider_runs_on_each_section_in_order_and_outputs_are_joined(tmp_path: Path) -> None:
    attempt = an_attempt_about(tmp_path, a_manual(), [{"log": "asked"}, {"result": "Said."}])

    assert attempt.run() == 0
    assert attempt.logs == [
        "A manual: 4 sections",
        "section 1 of 4: A manual (page 1)",
        "asked",
        "section 2 of 4: One (page 2)",
        "asked",
        "section 3 of 4: One, closer (pages 2 to 3)",
        "asked",
        "section 4 of 4: Two (page 3)",
        "asked",
    ]
    assert attempt.result["markdown"] == (
        "# A manual\n\n## A manual\n\nSaid.\n\n## One\n\nSaid.\n\n### One, closer\n\nSaid.\n\n## Two\n\nSaid.\n"
    )


def test_usage_covers_all_sections(tmp_path: Path) -> None:
    attempt = an_attempt_about(tmp_path, a_manual(), [{"usage": {"inputTokens": 10, "costUsd": 0.5, "turns": 1}}])

    assert attempt.run() == 0
    assert attempt.outcome.usage == Usage(input_tokens=40, cost_usd=2.0, turns=4)


def test_limit_covers_all_sections(tmp_path: Path) -> None:
    config = JobConfig(provider="mock", max_cost_usd=1.0)
    attempt = an_attempt_about(tmp_path, a_manual(), [{"usage": {"costUsd": 0.4}}], config=config)

    assert attempt.run() == 1
    code, sentence = attempt.failure
    assert code is FailedCode.BUDGET
    assert sentence.startswith("section 3 of 4, 'One, closer': the run cost $1.2")


def test_failure_names_its_section(tmp_path: Path) -> None:
    attempt = an_attempt_about(tmp_path, a_manual(), [{"fail": "no idea"}])

    assert attempt.run() == 1
    assert attempt.failure == (FailedCode.AGENT_ERROR, "section 1 of 4, 'A manual': no idea")


def test_pipeline_can_be_stopped_within_a_section(tmp_path: Path) -> None:
    attempt = an_attempt_about(tmp_path, a_manual(), [{"log": "asked"}, {"hang": True}])

    with attempt.started() as process:
        deadline = time.monotonic() + 30
        while "asked" not in attempt.logs and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1

    assert attempt.failure == (FailedCode.AGENT_ERROR, "stopped on request")
    assert attempt.logs.count("asked") == 1


UNREADABLE = {
    "encrypted": (encrypted(), "it is encrypted; upload a copy without a password"),
    "no PDF inside": (b"%PDF-1.7\nnothing more", "it is damaged, or not a PDF"),
    "random bytes": (b"%PDF-1.7\n" + bytes(range(256)) * 100, "it is damaged, or not a PDF"),
    "pictures only": (a_pdf([[]]), "it contains no text"),
    "very many pages": (many_pages(100_000), f"it has 100000 pages, more than {MAX_PAGES}"),
    "a very deep tree of pages": (deep_pages(50_000), "one of its pages is damaged"),
    "very many entries": (a_pdf([[Line("a", 9)]], [Entry("a", 0)] * 1500), "its outline has more than 1000 entries"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_pdf_fails_with_the_reason(tmp_path: Path, case: str) -> None:
    pdf, sentence = UNREADABLE[case]
    attempt = an_attempt_about(tmp_path, pdf)

    assert attempt.run() == 1
    code, message = attempt.failure
    assert code is FailedCode.WORKSPACE
    assert message.startswith(f"the PDF cannot be read: {sentence}")


def test_page_that_inflates_kills_only_the_reader(tmp_path: Path) -> None:
    pdf = an_inflating_page(4 * 1024**3)
    assert len(pdf) < 50_000
    attempt = an_attempt_about(tmp_path, pdf)

    assert attempt.run() == 1
    assert attempt.failure == (
        FailedCode.WORKSPACE,
        "the PDF cannot be read: reading takes more time or memory than allowed",
    )


def test_cyclic_outline_is_read_once(tmp_path: Path) -> None:
    assert [each["title"] for each in read(tmp_path, endless_outline())["sections"]] == ["One", "Two"]


def test_job_without_a_pdf_fails(tmp_path: Path) -> None:
    attempt = an_attempt_about(tmp_path, b"just text")

    assert attempt.run() == 1
    assert attempt.failure == (FailedCode.WORKSPACE, "none of the job's files is a PDF; upload one")
