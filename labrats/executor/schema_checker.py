"""Check a value under a JSON Schema: `python -I -m labrats.executor.schema_checker` reads both and prints the problems.

The schema is a user's, the value an agent's, and a small schema can require any number of steps. This is therefore a
separate program with limited time and memory.
"""

import sys
from typing import Any

import msgspec

from labrats.executor.limited_program import limit_this_process
from labrats.model.record import Record, encode
from labrats.model.result_schema import problems_of_value


class Question(Record):
    """The input: a valid schema, and the value to check."""

    schema: dict[str, Any]
    value: Any = None


class Findings(Record):
    """The output. problems: the rules that the value breaks, without parts of the value."""

    problems: tuple[str, ...] = ()


def main() -> int:
    limit_this_process()
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    sys.stdout.buffer.write(encode(Findings(problems=tuple(problems_of_value(question.schema, question.value)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
