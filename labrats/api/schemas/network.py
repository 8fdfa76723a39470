"""The rule for the network of an agent, in the settings of jobs and agents."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag

from labrats.api.schemas.base import RequestBody, ResponseBody
from labrats.api.schemas.variables import OBJECT_TAG, TEXT_TAG
from labrats.model.network import MOST_HOSTS, NETWORK_FORMS, WORDS, AllowedHosts, Network, problem_of_network

_Host = Annotated[str, StringConstraints(min_length=1, max_length=260)]


class AllowedHostsBody(RequestBody):
    """Hosts that may be reached."""

    allow: list[_Host] = Field(
        min_length=1,
        max_length=MOST_HOSTS,
        description="Host names, `*.` before a name for all names below it, a name with a port (without one, 80 and "
        "443), or the presets npm, pypi, go, crates, debian and github.",
        examples=[["npm", "*.example.com"]],
    )


def _tag_of(value: Any) -> str:
    return OBJECT_TAG if isinstance(value, dict | AllowedHostsBody) else TEXT_TAG


def _check_word(value: Any) -> Any:
    """Raise ValueError unless `value` is a word for a rule. Pydantic's own message would omit the form with hosts."""
    if value not in WORDS:
        raise ValueError(NETWORK_FORMS)
    return value


def network_rule(body: "NetworkBody") -> Network:
    """Convert the request's rule to the engine's type."""
    return body if isinstance(body, str) else AllowedHosts(allow=tuple(body.allow))


def _check(body: "NetworkBody") -> "NetworkBody":
    if problem := problem_of_network(network_rule(body)):
        raise ValueError(problem)
    return body


NetworkBody = Annotated[
    Annotated[Literal["open", "public", "none"], BeforeValidator(_check_word), Tag(TEXT_TAG)]
    | Annotated[AllowedHostsBody, Tag(OBJECT_TAG)],
    Discriminator(_tag_of),
    Field(
        description="Hosts that the agent and its tools may reach: all (`open`), all with public addresses, by a proxy "
        "(`public`), none but its model's server (`none`), or those in `allow`. All but `open` are refused with 422 "
        "where the engine cannot enforce them: without a sandbox, or on a cluster without an egress proxy or enforced "
        "NetworkPolicies.",
        examples=["none", {"allow": ["npm", "*.example.com"]}],
    ),
    AfterValidator(_check),
]


class AllowedHostsView(ResponseBody):
    """Hosts that may be reached."""

    allow: list[str] = Field(examples=[["npm", "*.example.com"]])


NetworkView = Literal["open", "public", "none"] | AllowedHostsView
