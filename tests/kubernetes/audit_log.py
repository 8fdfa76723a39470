"""The writes of engines in the API server's audit log."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from labrats.backends.kubernetes.fence import field_manager
from tests.cluster.cluster import Cluster

_WRITES = ("create", "update", "patch", "delete")


@dataclass(frozen=True)
class Write:
    """One write request. manager: its field manager."""

    at: datetime
    verb: str
    target: str
    manager: str
    code: int

    @property
    def was_accepted(self) -> bool:
        return self.code < 300


def writes_in(cluster: Cluster, namespace: str) -> list[Write]:
    """Return the writes of engines in a namespace, in order, without those of the leader election."""
    return [write for write in _writes(cluster, namespace) if write.target != "leases"]


def answers_in(cluster: Cluster, namespace: str) -> Iterator[int]:
    """Yield the status code of every answer to an engine or a test in the namespace."""
    for entry in _requests(cluster, namespace):
        yield entry["responseStatus"]["code"]


def epoch_of(write: Write) -> int:
    """Return the epoch of the leader that sent the write; 0 for another client."""
    prefix = field_manager(0).removesuffix("0")
    return int(write.manager.removeprefix(prefix)) if write.manager.startswith(prefix) else 0


def _writes(cluster: Cluster, namespace: str) -> Iterator[Write]:
    for entry in _requests(cluster, namespace):
        query = parse_qs(urlsplit(entry["requestURI"]).query)
        if entry["verb"] in _WRITES and "dryRun" not in query:
            target = entry["objectRef"]
            yield Write(
                at=datetime.fromisoformat(entry["requestReceivedTimestamp"]),
                verb=entry["verb"],
                target="/".join(filter(None, (target.get("resource"), target.get("subresource")))),
                manager=query.get("fieldManager", [""])[0],
                code=entry["responseStatus"]["code"],
            )


def _requests(cluster: Cluster, namespace: str) -> Iterator[dict[str, Any]]:
    for line in (cluster.folder / "audit.jsonl").read_text().splitlines():
        entry: dict[str, Any] = json.loads(line)
        is_from_python = entry.get("userAgent", "").startswith("Python/")
        if is_from_python and entry.get("objectRef", {}).get("namespace") == namespace:
            yield entry
