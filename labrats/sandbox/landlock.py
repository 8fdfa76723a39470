"""Rules of the kernel's Landlock for this process and its descendants, which they cannot remove.

https://docs.kernel.org/userspace-api/landlock.html
"""

import os
import struct
from functools import cache
from typing import Final

from labrats.libc import LIBC, Prctl, prctl, succeed

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_GET_VERSION: Final = 1
_FIRST_WITH_SCOPES: Final = 6
_ABSTRACT_SOCKETS: Final = 1 << 0


def can_scope_sockets() -> bool:
    """Return whether the kernel can refuse connections to abstract Unix sockets (Linux 6.12)."""
    return int(LIBC.syscall(_CREATE_RULESET, None, 0, _GET_VERSION)) >= _FIRST_WITH_SCOPES


@cache
def scope_sockets() -> None:
    """Keep this process from connecting to abstract Unix sockets of other processes, once. Raises OSError.

    These sockets belong to the network namespace, which an agent shares with the machine. Does nothing on a kernel
    without this feature.
    """
    if not can_scope_sockets():
        return
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped
    attributes = struct.pack("3Q", 0, 0, _ABSTRACT_SOCKETS)
    rules = succeed("landlock_create_ruleset", LIBC.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    try:
        prctl(Prctl.PR_SET_NO_NEW_PRIVS, 1)
        succeed("landlock_restrict_self", LIBC.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)
