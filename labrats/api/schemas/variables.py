"""Environment variables in the settings of jobs and agents."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from labrats.api.schemas.base import Name, RequestBody, ResponseBody
from labrats.api.schemas.patterns import DATA_KEY, NO_NUL, VARIABLE
from labrats.model.variables import LONGEST_VARIABLE, MAX_VARIABLES, SecretKey, problem_of_variables

TEXT_TAG: Final = "[text]"
OBJECT_TAG: Final = "[object]"
"""Parts of the location of a pydantic error, which say what a value was read as."""


class SecretKeyBody(RequestBody):
    """A value of a Secret."""

    secret: Name = Field(description="The Secret's name.", examples=["npm"])
    key: Annotated[str, StringConstraints(pattern=DATA_KEY)] = Field(
        description="The key of the value in the Secret.", examples=["token"]
    )


def _tag_of(value: Any) -> str:
    return OBJECT_TAG if isinstance(value, dict | SecretKeyBody) else TEXT_TAG


_Text = Annotated[str, StringConstraints(max_length=4096, pattern=NO_NUL)]
_Value = Annotated[Annotated[_Text, Tag(TEXT_TAG)] | Annotated[SecretKeyBody, Tag(OBJECT_TAG)], Discriminator(_tag_of)]


def variables(bodies: Mapping[str, str | SecretKeyBody]) -> dict[str, str | SecretKey]:
    """Convert the request's variables to the engine's type."""
    return {
        name: value if isinstance(value, str) else SecretKey(secret=value.secret, key=value.key)
        for name, value in bodies.items()
    }


def _check_all(bodies: dict[str, str | SecretKeyBody]) -> dict[str, str | SecretKeyBody]:
    if problem := problem_of_variables(variables(bodies)):
        raise ValueError(problem)
    return bodies


VariablesBody = Annotated[
    dict[Annotated[str, StringConstraints(max_length=LONGEST_VARIABLE, pattern=VARIABLE)], _Value],
    Field(
        max_length=MAX_VARIABLES,
        description="Environment variables of the agent and its tools, by name: a text, or a value of a Secret, which "
        "is redacted in all output. Administrators only. The first layer that sets `env` wins.",
        examples=[{"CI": "1", "NPM_TOKEN": {"secret": "npm", "key": "token"}}],
    ),
    AfterValidator(_check_all),
]


class SecretKeyView(ResponseBody):
    """A value of a Secret, which is not shown."""

    secret: str = Field(examples=["npm"])
    key: str = Field(examples=["token"])


VariablesView = dict[str, str | SecretKeyView]
