"""The rules for the body of a request: one JSON object for a model of the job, at the usual prices. Does no I/O."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from labrats.executor.key_proxy.reach import (
    MOST_VALUES,
    ReachesOthers,
    TooManyValues,
    searches_by_itself,
    without_reach,
)
from labrats.executor.key_proxy.request_fields import FieldFilter
from labrats.executor.key_proxy.responses import Refused
from labrats.model.model_names import AllowedModels
from labrats.model.network import limits_model_server
from labrats.model.protocol import Task

MOST_MARKS: Final = 2_000_000
"""Limit on the brackets, commas and quotes of a body. Reading it takes up to some 150 bytes of memory for each."""

_STREAM_WITH_OPTIONS: Final = "/chat/completions"
"""End of the path whose streams report their usage only if the request asks for it."""

_AT_USUAL_PRICES: Final[Mapping[str, frozenset[bytes]]] = {
    "speed": frozenset({b"null", b'"standard"'}),
    "service_tier": frozenset({b"null", b'"auto"', b'"default"', b'"flex"', b'"standard_only"'}),
    "inference_geo": frozenset({b"null", b'"global"'}),
}
"""Fields by which a request asks for a faster answer, or one from a place, and their values that cost no more."""

_NULL: Final = msgspec.Raw(b"null")


class CheckedBody(NamedTuple):
    """A body as it is forwarded. removed: the names of the fields that are not forwarded."""

    model: str
    content: bytes
    removed: Sequence[str]


class BodyRules:
    """The rules for the bodies of one attempt's requests."""

    def __init__(self, task: Task) -> None:
        self._config = task.config
        self._models = AllowedModels.of(task.config)
        self._limits_server = limits_model_server(task.config.network, task.endpoint)

    def check(self, path: str, body: bytes) -> CheckedBody:
        """Return a body as it is forwarded: with its listed fields, each of them and of its tools' fields once.

        Parsers differ in which of two equal fields they use, so that a second `model` could reach the server. A stream
        is told to report its usage: without it, the report of the agent's program would count. Raises Refused.

        path: of the request.
        """
        # A shorter body cannot have too many.
        if len(body) > MOST_MARKS and sum(map(body.count, (b"{", b"[", b",", b'"'))) > MOST_MARKS:
            raise Refused(413, f"the body must have at most {MOST_MARKS} brackets, commas and quotes")
        try:
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            model = msgspec.json.decode(fields.get("model", _NULL), type=str)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refused(400, "the body must be a JSON object with the name of a model") from None
        filter_ = FieldFilter()
        fields = filter_.keep_listed(path, fields)
        if bytes(fields.get("background", b"false")) not in (b"false", b"null"):
            raise Refused(400, "a response in the background is not forwarded, as its usage cannot be measured")
        self._check_model(model)
        self._check_price(fields)
        is_chosen = model == self._config.model  # by whoever has chosen the rule, too
        if self._limits_server and not is_chosen and searches_by_itself(model):
            raise Refused(400, f"the model {model[:100]!r} searches the web, and this job has a network rule", model)
        for other in filter_.models:
            self._check_model(other)
        if path.endswith(_STREAM_WITH_OPTIONS) and bytes(fields.get("stream", _NULL)) not in (b"false", b"null"):
            fields["stream_options"] = _with_usage(fields.get("stream_options", _NULL))
        once = msgspec.json.encode(fields)
        return CheckedBody(model, _without_reach(once) if self._limits_server else once, filter_.removed)

    def _check_price(self, fields: Mapping[str, msgspec.Raw]) -> None:
        """Raise Refused for a request that costs more than its tokens."""
        for name, usual in _AT_USUAL_PRICES.items():
            if name in fields and bytes(fields[name]) not in usual and not self._config.fast:
                raise Refused(400, f"this answer would cost more, and the job is not `fast`: leave out `{name}`")

    def _check_model(self, model: str) -> None:
        if not model:  # some servers answer with their usual model, whose price could not be found
            raise Refused(400, "the body must name a model")
        if model not in self._models:
            raise Refused(404, f"the model {model[:100]!r} is not the job's: use {self._config.model!r}", model)


def _without_reach(body: bytes) -> bytes:
    try:
        return without_reach(body)
    except TooManyValues:
        raise Refused(413, f"a job with a network rule sends at most {MOST_VALUES} values in a request") from None
    except ReachesOthers as found:
        message = f"{found} would make the model's server reach other hosts, which this job may not"
        raise Refused(400, message) from None


def _with_usage(options: msgspec.Raw) -> msgspec.Raw:
    """Return the options of a stream with a report of its usage. Raises Refused unless they are null or an object."""
    try:
        given = msgspec.json.decode(options, type=dict[str, msgspec.Raw] | None) or {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(400, "`stream_options` must be an object") from None
    return msgspec.Raw(msgspec.json.encode({**given, "include_usage": msgspec.Raw(b"true")}))
