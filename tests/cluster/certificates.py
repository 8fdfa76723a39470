"""Keys, certificates and kubeconfigs of a test cluster."""

import json
from pathlib import Path
from typing import Any, Final

from tests.cluster.shell import run

_EC: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_DAYS: Final = "30"


class Authority:
    """The cluster's certificate authority. folder: for the keys and certificates. server: the API server's URL."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self.service_account_key = folder / "service-accounts.key"
        self._server = server

    def create(self) -> None:
        """Create the authority's key and certificate, and the key that signs service account tokens."""
        self.folder.mkdir(parents=True)
        run(
            *("openssl", "req", "-x509", *_EC, "-days", _DAYS, "-subj", "/CN=labrats-test"),
            *("-keyout", self.folder / "ca.key", "-out", self.certificate),
        )
        # Kubernetes accepts only this of openssl's formats as both the private and the public key.
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.service_account_key)

    def issue(self, name: str, subject: str, alternatives: str = "DNS:localhost") -> Path:
        """Create a key and a certificate for `subject`. Return the path of a kubeconfig that uses them.

        alternatives: a server's names and addresses, in openssl's syntax.
        """
        key, request, certificate = (self.folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\n")
        run("openssl", "req", *_EC, "-subj", subject, "-keyout", key, "-out", request)
        run(
            *("openssl", "x509", "-req", "-in", request, "-days", _DAYS, "-extfile", extensions, "-out", certificate),
            *("-CA", self.certificate, "-CAkey", self.folder / "ca.key", "-CAcreateserial"),
        )
        kubeconfig = self.folder / f"{name}.kubeconfig"
        kubeconfig.write_text(json.dumps(self._kubeconfig(certificate, key)))
        return kubeconfig

    def _kubeconfig(self, certificate: Path, key: Path) -> dict[str, Any]:
        cluster = {"server": self._server, "certificate-authority": str(self.certificate)}
        user = {"client-certificate": str(certificate), "client-key": str(key)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "labrats-test", "cluster": cluster}],
            "users": [{"name": "labrats-test", "user": user}],
            "contexts": [{"name": "labrats-test", "context": {"cluster": "labrats-test", "user": "labrats-test"}}],
            "current-context": "labrats-test",
        }
