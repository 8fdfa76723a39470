"""`python -m benchmarks.etcd URL`: put what stdin says into etcd, one `key<TAB>value` a line.

An API server takes most of an hour for what etcd takes in seconds. Runs in the network of the cluster.
"""

import base64
import json
import sys
import urllib.request
from typing import Final

_AT_ONCE: Final = 100
"""In one transaction; etcd allows 128."""


def main() -> None:
    url, lines = sys.argv[1], sys.stdin.read().splitlines()
    for start in range(0, len(lines), _AT_ONCE):
        puts = [_put(*line.split("\t", 1)) for line in lines[start : start + _AT_ONCE]]
        body = json.dumps({"success": puts}).encode()
        with urllib.request.urlopen(f"{url}/v3/kv/txn", body) as answer:
            answer.read()


def _put(key: str, value: str) -> dict[str, dict[str, str]]:
    return {"request_put": {"key": _base64(key), "value": _base64(value)}}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


if __name__ == "__main__":
    main()
