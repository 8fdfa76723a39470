"""The program in the pod of network_check.py: `python -m labrats.backends.kubernetes.network_probe ADDRESS PORT`."""

import socket
import sys
import time
from typing import Final

CLOSED: Final = 0
OPEN: Final = 7
"""Exit status of the program. Python itself exits with 1 after an error."""

SETTLE_SECONDS: Final = 5.0
"""Time for the network to apply its policies to a new pod."""

TRIES: Final = 3
TRY_SECONDS: Final = 3.0


def probe(address: str, port: int) -> int:
    """Return OPEN if the address accepts a connection at any try, or else CLOSED. Something must listen there."""
    for _ in range(TRIES):
        try:
            socket.create_connection((address, port), timeout=TRY_SECONDS).close()
        except OSError:
            continue
        return OPEN
    return CLOSED


if __name__ == "__main__":
    time.sleep(SETTLE_SECONDS)
    sys.exit(probe(sys.argv[1], int(sys.argv[2])))
