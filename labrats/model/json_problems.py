"""Errors of msgspec in words for the person who wrote the JSON."""

import re
from typing import Final

import msgspec

from labrats.model.errors import Problem

NO_SUCH_FIELD: Final = "there is no such field"

_FIELD_ERROR: Final = re.compile(r"Object (?P<error>contains unknown|missing required) field `(?P<name>.*)`")
_BOUND_ERROR: Final = re.compile(r"Expected `(?:int|float)` (?P<sign>[<>])= (?P<bound>.+)")
_LENGTH_ERROR: Final = re.compile(r"Expected `(?P<type>str|array)` of length <= (?P<bound>\d+)")
_TYPE_ERROR: Final = re.compile(r"Expected `(\w+)(?: \| null)?`, got ")
_TYPES: Final = {
    "int": "must be a whole number",
    "float": "must be a number",
    "str": "must be a string",
    "bool": "must be true or false",
    "object": "must be an object",
    "array": "must be an array",
}
_ITEMS: Final = {"str": "characters", "array": "items"}


def problem_of(error: msgspec.ValidationError, path: str = "") -> Problem:
    """Translate an error of msgspec, "What is wrong - at `$.field`" with the types of Python, into a Problem.

    path: the place of the decoded value in the request; empty if the value is the request.
    """
    text, _, path_in_value = str(error).partition(" - at `$")
    field = path + path_in_value.rstrip("`")
    if found := _FIELD_ERROR.fullmatch(text):
        unknown = found["error"] == "contains unknown"
        field, message = f"{field}.{found['name']}", NO_SUCH_FIELD if unknown else "is required"
    elif found := _BOUND_ERROR.fullmatch(text):
        message = f"must be at {'least' if found['sign'] == '>' else 'most'} {float(found['bound']):.15g}"
    elif text == "Expected `str` of length >= 1":
        message = "must not be empty"
    elif found := _LENGTH_ERROR.fullmatch(text):
        message = f"must have at most {found['bound']} {_ITEMS[found['type']]}"
    elif (found := _TYPE_ERROR.match(text)) and found[1] in _TYPES:
        message = _TYPES[found[1]]
    else:
        message = text[0].lower() + text[1:]
    return Problem(field if path else field.removeprefix("."), message)
