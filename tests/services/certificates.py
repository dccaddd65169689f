"""A certificate authority of the tests, and what it signs; made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """Files in PEM."""

    certificate: Path
    key: Path
    both: Path
    """Key and certificate in one file, as ZooKeeper takes them."""


class Authority:
    """Signs certificates that are good for two days."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._openssl("req", "-x509", *CURVE, "-keyout", self._key, "-out", self.certificate, "-subj", "/CN=tests")

    def sign(self, name: str, *hosts: str) -> Certificate:
        """A certificate for whoever has that name, good for these hosts: ``DNS:localhost``, ``IP:127.0.0.1``."""
        made = Certificate(*(self._folder / f"{name}.{ending}" for ending in ("crt", "key", "pem")))
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(hosts)}\n" if hosts else "")
        self._openssl("req", *CURVE, "-keyout", made.key, "-out", request, "-subj", f"/CN={name}")
        signing = ("x509", "-req", "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", "2")
        self._openssl(*signing, "-in", request, "-out", made.certificate, "-extfile", extensions)
        made.both.write_text(made.key.read_text() + made.certificate.read_text())
        return made

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
