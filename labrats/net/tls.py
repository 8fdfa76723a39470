"""Verification of servers' certificates, the same on every Python."""

import ssl
from functools import cache
from pathlib import Path


def verifying_tls(cafile: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts the authorities in a file; without one, those of the system or of SSL_CERT_FILE."""
    return accept_private_authorities(ssl.create_default_context(cafile=cafile))


@cache
def system_tls() -> ssl.SSLContext:
    """Load the authorities that httpx2 trusts by default. Takes some 30 ms and a few MiB, so it is done only once."""
    import httpcore2  # the executor's proxies do not need it

    return accept_private_authorities(httpcore2.default_ssl_context())


def accept_private_authorities(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let a context accept the authorities that git, curl and Go accept. Return it.

    From 3.13 on, Python by default refuses one that does not name its key usage, and a certificate that does not
    identify its authority. Many private authorities, and those of some Kubernetes clusters, do not.
    """
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
