"""Sign commits with the SSH key in a source's Secret, as git does. The key is never written to a file."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

from labrats.model.errors import LabratsError
from labrats.model.webhook_source import COMMITTER, SIGNING_KEY

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization.ssh import SSHPrivateKeyTypes

_COMMITTER: Final = re.compile(r"[^<>\n\0]*[^<>\s\0] <[^<>\s\0]+@[^<>\s\0]+>")
_MAGIC: Final = b"SSHSIG"
_VERSION: Final = (1).to_bytes(4, "big")
_NAMESPACE: Final = b"git"
_LINE: Final = 70


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
        """Return the signature of a commit, the same each time, as lines of text. Raises CannotSign.

        Its format is that of `ssh-keygen -Y sign`, which refuses to run for a user without a name, as in containers:
        https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig
        """
        if not _COMMITTER.fullmatch(self.committer):
            example = "Ada <ada@example.com>"
            raise CannotSign(f"the Secret needs a `{COMMITTER}` such as `{example}` for its `{SIGNING_KEY}`")
        subject = _strings(_NAMESPACE, b"", b"sha512", hashlib.sha512(content).digest())
        public_key, kind, signature = self._sign(_MAGIC + subject)
        fields = _strings(public_key, _NAMESPACE, b"", b"sha512", _strings(kind, signature))
        text = base64.b64encode(_MAGIC + _VERSION + fields)
        lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
        return b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----"])

    def _sign(self, content: bytes) -> tuple[bytes, bytes, bytes]:
        """Return the public key, the name of the algorithm and the signature. Raises CannotSign."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # on first use: it is large
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.hashes import SHA512
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        match key := self._private_key:
            case Ed25519PrivateKey():
                kind, signature = b"ssh-ed25519", key.sign(content)
            case RSAPrivateKey():
                kind, signature = b"rsa-sha2-512", key.sign(content, PKCS1v15(), SHA512())
            case _:
                raise CannotSign(f"the `{SIGNING_KEY}` of the Secret must be an Ed25519 or RSA key")
        public_key = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return base64.b64decode(public_key.split()[1]), kind, signature

    @cached_property
    def _private_key(self) -> "SSHPrivateKeyTypes":
        """The parsed key. An RSA key is checked for a tenth of a second when it is parsed. Raises CannotSign."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key

        try:
            return load_ssh_private_key(f"{self.key}\n".encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            message = f"the `{SIGNING_KEY}` of the Secret is not a private key in OpenSSH's format without a passphrase"
            raise CannotSign(message) from None  # the cause may contain the key


def _strings(*values: bytes) -> bytes:
    """Return values as OpenSSH stores strings: each with its length before it."""
    return b"".join(len(value).to_bytes(4, "big") + value for value in values)
