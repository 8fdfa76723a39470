"""The documentation agrees with the code where that can be checked."""

from pathlib import Path

from labrats.model.phases import MOVES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_diagram_of_a_job_shows_the_table_of_moves() -> None:
    drawn = {
        line.strip()
        for line in (DOCS / "architecture.md").read_text().splitlines()
        if "-->" in line and ": " in line and "[" not in line
    }
    assert drawn == {f"{before} --> {after}: {event}" for (before, event), after in MOVES.items()}
