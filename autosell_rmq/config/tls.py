"""TLS towards the broker: who is trusted, who we are; files are tried where they are set."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from os import PathLike, fspath, strerror

from autosell_rmq.config.check import flag
from autosell_rmq.exceptions import ConfigError

type FilePath = str | PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TLS:
    """The settings ``tls_…`` and ``allow_insecure_tls``, as `Settings` describes them."""

    ca_file: FilePath | None
    cert_file: FilePath | None
    key_file: FilePath | None
    key_password: str | None
    insecure: bool

    def check(self, scheme: str) -> None:
        """Refuse what does not go together, and files that cannot be used.

        Raises:
            ConfigError: it names the setting, and never shows the password.
        """
        flag("allow_insecure_tls", self.insecure)
        password: object = self.key_password
        if password is not None and not (isinstance(password, str) and password):
            raise ConfigError("tls_key_password: expected a non-empty string")
        files = {
            "tls_ca_file": self.ca_file,
            "tls_cert_file": self.cert_file,
            "tls_key_file": self.key_file,
        }
        given = {name: _path(name, path) for name, path in files.items() if path is not None}
        if given and scheme == "amqp":
            name, path = next(iter(given.items()))
            raise ConfigError(f"{name}={path!r}: nothing of amqp:// is encrypted, the URL has to be amqps://")
        if self.cert_file is None and (self.key_file is not None or password is not None):
            raise ConfigError("tls_key_file and tls_key_password go with tls_cert_file, which is left out")
        if self.insecure and self.ca_file is not None:
            raise ConfigError(
                f"tls_ca_file={self.ca_file!r} has no effect with allow_insecure_tls=True: leave one out"
            )
        if given:
            self.make_context()

    def make_context(self) -> ssl.SSLContext:
        """What a connection is opened with, from the files as they are now. Blocks for some milliseconds.

        Raises:
            ConfigError: a file cannot be read or used; it names the setting.
        """
        context = ssl.create_default_context(cafile=self._ca())
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file is not None:
            self._load_certificate(context, _readable("tls_cert_file", self.cert_file))
        return context

    def _ca(self) -> str | None:
        if self.ca_file is None:
            return None
        path = _readable("tls_ca_file", self.ca_file)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except ssl.SSLError:
            raise ConfigError(
                f"tls_ca_file={path!r}: there is no certificate in it (PEM is expected)"
            ) from None
        return path

    def _load_certificate(self, context: ssl.SSLContext, certificate: str) -> None:
        key = None if self.key_file is None else _readable("tls_key_file", self.key_file)
        try:
            # With a password in any case: without one OpenSSL asks for it at the terminal.
            context.load_cert_chain(certificate, key, self.key_password or "")
        except (ssl.SSLError, ValueError) as error:
            where = f"tls_cert_file={certificate!r}" + ("" if key is None else f", tls_key_file={key!r}")
            why = "no certificate with its key can be read (PEM; an encrypted key needs its tls_key_password)"
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                why = "the key is not the one of the certificate"
            raise ConfigError(f"{where}: {why}") from None


def _path(name: str, path: object) -> str:
    if isinstance(path, str | PathLike) and (text := fspath(path)) and isinstance(text, str):
        return text
    raise ConfigError(f"{name}={path!r}: expected the path of a file")


def _readable(name: str, path: FilePath) -> str:
    try:
        with open(path, "rb"):
            return fspath(path)
    except OSError as error:
        raise ConfigError(f"{name}={fspath(path)!r}: {strerror(error.errno or 0)}") from None
    except ValueError as error:  # a NUL in it
        raise ConfigError(f"{name}={fspath(path)!r}: {error}") from None
