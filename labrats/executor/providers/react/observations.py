"""The results of tool calls, shortened for the model. Full results are stored in files that the model can read."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from labrats.files.safe_paths import write_inside

FOLDER: Final = "observations"
_FEWEST_CHARACTERS: Final = 800
_MOST_CHARACTERS: Final = 16_000


@dataclass(frozen=True)
class Observation:
    """The result of a tool call."""

    text: str
    is_error: bool = False


@dataclass(frozen=True)
class ObservationStore:
    """Stores long results in files below `scratch`. characters: the length to which they are shortened."""

    scratch: Path
    characters: int

    def shorten(self, text: str) -> str:
        """Return `text`; if it is too long, store it and return its head and tail with the path of the file."""
        if len(text) <= self.characters:
            return text
        content = text.encode()
        # Named after the content, so that equal results look equal to the model.
        name = f"{FOLDER}/{blake2b(content, digest_size=6).hexdigest()}.txt"
        write_inside(self.scratch, name, content)
        return without_middle(text, self.characters, f"the full text is in {self.scratch / name}, for read_file")


def shown_characters(window_tokens: int) -> int:
    """Return the number of characters of a result to show: about an eighth of the model's window, within bounds."""
    return min(max(window_tokens * 3 // 8, _FEWEST_CHARACTERS), _MOST_CHARACTERS)


def without_middle(text: str, characters: int, note: str) -> str:
    """Return the head and tail of the text, `characters` long together, with a note between them."""
    tail = characters // 3
    head = characters - tail
    missing = len(text) - characters
    return f"{text[:head]}\n[… {missing} characters omitted; {note} …]\n{text[len(text) - tail :]}"
