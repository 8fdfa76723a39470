"""The program in the pod of network_check.py: `python -m labrats.backends.kubernetes.network_probe ADDRESS PORT`."""

import socket
import sys
import time
from typing import Final

CLOSED: Final = 0
OPEN: Final = 7
"""How it exits. Not with 1, as it would for any mishap."""

SETTLE_SECONDS: Final = 5.0
"""How long the network may take to apply its policies to a new pod."""

TRIES: Final = 3
TRY_SECONDS: Final = 3.0


def knock(address: str, port: int) -> int:
    """OPEN when somebody answers at the address, who is known to be there; CLOSED when nobody does, at each try."""
    for _ in range(TRIES):
        try:
            socket.create_connection((address, port), timeout=TRY_SECONDS).close()
        except OSError:
            continue
        return OPEN
    return CLOSED


if __name__ == "__main__":
    time.sleep(SETTLE_SECONDS)
    sys.exit(knock(sys.argv[1], int(sys.argv[2])))
