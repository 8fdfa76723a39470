"""The conversation that a follow-up continues: the prompts and answers of the jobs before it."""

from collections.abc import Sequence
from typing import Final

import msgspec

from labrats.model.outside_text import Marks, shortened, without_hidden
from labrats.model.record import Record, encode

TEXT_BYTES: Final = 64 * 1024
"""Limit on a prompt and on an answer."""

CONVERSATION_BYTES: Final = 256 * 1024
"""Limit on all prompts and answers. The oldest turns are left out first."""

_INTRODUCTION: Final = "You have worked on this before. This is the conversation so far, the oldest message first:"
_LAST: Final = "Your workspace may not be as you left it. The message to answer now is:"


class Turn(Record):
    """The prompt of one job and the answer of its agent."""

    prompt: str
    answer: str


Conversation = tuple[Turn, ...]
"""Turns, the oldest first."""

_DECODER: Final = msgspec.json.Decoder(Conversation)


def continued(conversation: Conversation, prompt: str, answer: str) -> Conversation:
    """Return the conversation with one more turn, within the limits."""
    last = Turn(prompt=_bounded(prompt), answer=_bounded(answer))
    turns, size = [last], _bytes_of(last)
    for turn in reversed(conversation):
        size += _bytes_of(turn)
        if size > CONVERSATION_BYTES:
            break
        turns.insert(0, turn)
    return tuple(turns)


def encode_conversation(conversation: Conversation) -> str:
    """Return the conversation as JSON."""
    return encode(list(conversation)).decode()


def decode_conversation(text: str) -> Conversation:
    """Return the conversation in `text`; an empty one if the text is none."""
    try:
        return _DECODER.decode(text)
    except msgspec.DecodeError:
        return ()


def with_conversation(conversation: Sequence[Turn], prompt: str) -> str:
    """Return the prompt for an agent that does not know the conversation, which precedes the prompt as data."""
    if not conversation:
        return prompt
    marks = Marks()
    messages = [
        marks.mark(origin, text)
        for turn in conversation
        for origin, text in (("an earlier prompt", turn.prompt), ("your earlier answer", turn.answer))
    ]
    return "\n\n".join([marks.note, _INTRODUCTION, *messages, _LAST, prompt])


def _bounded(text: str) -> str:
    return shortened(without_hidden(text), TEXT_BYTES)


def _bytes_of(turn: Turn) -> int:
    return len(turn.prompt.encode()) + len(turn.answer.encode())
