"""`python -m benchmarks.etcd URL`: read `key<TAB>value` lines from stdin and put them into etcd.

This takes seconds, whereas an API server takes most of an hour. The program runs in the cluster's network.
"""

import base64
import json
import sys
import urllib.request
from typing import Final

_BATCH_SIZE: Final = 100
"""Keys per transaction; etcd allows 128."""


def main() -> None:
    url, lines = sys.argv[1], sys.stdin.read().splitlines()
    for start in range(0, len(lines), _BATCH_SIZE):
        puts = [_put(*line.split("\t", 1)) for line in lines[start : start + _BATCH_SIZE]]
        body = json.dumps({"success": puts}).encode()
        with urllib.request.urlopen(f"{url}/v3/kv/txn", body) as answer:
            answer.read()


def _put(key: str, value: str) -> dict[str, dict[str, str]]:
    return {"request_put": {"key": _base64(key), "value": _base64(value)}}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


if __name__ == "__main__":
    main()
