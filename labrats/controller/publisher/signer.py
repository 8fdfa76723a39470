"""Sign commits with the SSH key in a source's Secret, by `ssh-keygen`, as git does.

The key stays in memory: a file of it would outlive a killed engine.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from labrats.model.errors import LabratsError
from labrats.model.webhook_source import COMMITTER, SIGNING_KEY

_SECONDS: Final = 10.0
_COMMITTER: Final = re.compile(r"[^<>\n\0]*[^<>\s\0] <[^<>\s\0]+@[^<>\s\0]+>")


class CannotSign(LabratsError):
    """The key cannot sign commits. Its text says why, without the key."""


@dataclass(frozen=True)
class Signer:
    """A private key in OpenSSH's format, and the committer of the commits that it signs: `Name <email>`.

    GitHub verifies a signature if the account with that email address has the public key as a signing key.
    """

    key: str = field(repr=False)
    committer: str

    @classmethod
    def of(cls, credentials: Mapping[str, str]) -> Self | None:
        """Return the signer of a Secret; None if it has no key."""
        key = credentials.get(SIGNING_KEY, "").strip()
        return cls(key, credentials.get(COMMITTER, "").strip()) if key else None

    def sign(self, content: bytes) -> bytes:
        """Return the signature of a commit without its end of line. Raises CannotSign."""
        if not _COMMITTER.fullmatch(self.committer):
            raise CannotSign(
                f"the Secret needs a `{COMMITTER}` such as `Ada <ada@example.com>` for its `{SIGNING_KEY}`"
            )
        file = os.memfd_create("signing-key")
        try:
            os.fchmod(file, 0o600)  # ssh-keygen refuses a key that others may read
            os.write(file, f"{self.key}\n".encode())
            return self._run(["-Y", "sign", "-n", "git", "-f", f"/dev/fd/{file}"], file, content).rstrip()
        finally:
            os.close(file)

    def _run(self, arguments: list[str], file: int, content: bytes) -> bytes:
        try:
            run = subprocess.run(
                ["ssh-keygen", "-q", *arguments],
                input=content,
                env={"PATH": os.environ.get("PATH", os.defpath), "SSH_ASKPASS_REQUIRE": "never"},
                pass_fds=[file],
                capture_output=True,
                timeout=_SECONDS,
                check=False,
                start_new_session=True,  # without a terminal it cannot ask for a passphrase
            )
        except subprocess.TimeoutExpired as error:
            raise CannotSign(f"ssh-keygen took more than {_SECONDS:g} s") from error
        except OSError as error:
            raise CannotSign(f"ssh-keygen cannot be run: {error.strerror}") from error
        if run.returncode:
            raise CannotSign(f"the `{SIGNING_KEY}` of the Secret is not an SSH private key without a passphrase")
        return run.stdout
