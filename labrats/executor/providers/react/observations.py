"""What a tool answered, cut to what the model can take in; the whole is kept where it can read on."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from labrats.files.safe_paths import write_beneath

NOTES: Final = "observations"
_FEWEST_CHARACTERS: Final = 800
_MOST_CHARACTERS: Final = 16_000


@dataclass(frozen=True)
class Observation:
    """What a call came to."""

    text: str
    is_error: bool = False


@dataclass(frozen=True)
class ObservationStore:
    """Keeps whole answers in files below `scratch`. characters: what the model is shown of one."""

    scratch: Path
    characters: int

    @property
    def folder(self) -> Path:
        return self.scratch / NOTES

    def shown(self, text: str) -> str:
        """`text`, or where it is too long its head and tail, and where to read the rest."""
        if len(text) <= self.characters:
            return text
        content = text.encode()
        # Named after what is in it, so that the same answer is shown the same way again.
        name = f"{NOTES}/{blake2b(content, digest_size=6).hexdigest()}.txt"
        write_beneath(self.scratch, name, content)
        return without_middle(text, self.characters, f"the whole is in {self.scratch / name}, for read_file")


def shown_characters(window_tokens: int) -> int:
    """How much of one answer a model reads that has this window: an eighth of it, within bounds."""
    return min(max(window_tokens * 3 // 8, _FEWEST_CHARACTERS), _MOST_CHARACTERS)


def without_middle(text: str, characters: int, note: str) -> str:
    """The first two thirds of `characters` of `text` and the last third, and between them what is missing."""
    tail = characters // 3
    head = characters - tail
    missing = len(text) - characters
    return f"{text[:head]}\n[… {missing} characters left out; {note} …]\n{text[len(text) - tail :]}"
