"""Certificates for a test, by openssl: an authority, and what it vouches for."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import pytest

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


@dataclass(frozen=True)
class Pair:
    """Two files in PEM."""

    certificate: Path
    key: Path


class Authority:
    """A CA of its own in `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if which("openssl") is None:
            pytest.skip("there is no openssl to make certificates with")
        self._folder = folder
        self._own = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        self._self_signed(self._own, name, "keyUsage=critical,keyCertSign,cRLSign")

    @property
    def certificate(self) -> Path:
        """What a client has to trust."""
        return self._own.certificate

    def issue(
        self, name: str, *names: str, days: int = 2, use: str = "serverAuth", password: str | None = None
    ) -> Pair:
        """A certificate for `names` (``DNS:localhost``, ``IP:127.0.0.1``), in files called `name`."""
        pair = self._pair(name)
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        encrypted = ("-nodes",) if password is None else ("-passout", f"pass:{password}")
        _openssl("req", *_KEY, *encrypted, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        extensions.write_text(
            f"basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage={use}\n"
            + (f"subjectAltName={','.join(names)}\n" if names else "")
        )
        signed_by = ("-CA", self._own.certificate, "-CAkey", self._own.key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signed_by, "-days", days, "-extfile", extensions,
                 "-out", pair.certificate)  # fmt: skip
        return pair

    def self_signed(self, name: str, *names: str) -> Pair:
        """A certificate that nobody vouches for."""
        pair = self._pair(name)
        self._self_signed(pair, name, f"subjectAltName={','.join(names)}")
        return pair

    def _pair(self, name: str) -> Pair:
        return Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")

    def _self_signed(self, pair: Pair, name: str, extension: str) -> None:
        _openssl("req", "-x509", *_KEY, "-nodes", "-keyout", pair.key, "-out", pair.certificate,
                 "-days", 2, "-subj", f"/CN={name}", "-addext", extension)  # fmt: skip


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
