"""The TLS context of a connection: verified, unless a setting of that name says otherwise."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl

from autosell_rmq.config import BrokerURL, Settings
from autosell_rmq.exceptions import AccessRefused, BrokerUnavailable, ConfigError

logger = logging.getLogger(__name__)

_NOISE = re.compile(r"^\[[^]]*\] | ?\(_ssl\.c:\d+\)$")
# OpenSSL: the issuer is not known, or the certificate is its own issuer.
_UNTRUSTED = (18, 19, 20, 21)
_HINTS = (
    ("CERTIFICATE_UNTRUSTED", " (tls_ca_file names whom to trust)"),
    ("WRONG_VERSION_NUMBER", " (does this port speak TLS?)"),
    ("ALERT", " (if it asks for a certificate of ours: tls_cert_file)"),
)


async def context(settings: Settings) -> ssl.SSLContext | None:
    """A context for one connection, None for ``amqp://``.

    Made anew each time, so that a renewed certificate is used from the next connection on.

    Raises:
        AccessRefused: a file cannot be used any more.
    """
    if settings.broker_url.scheme != "amqps":
        return None
    try:
        return await asyncio.to_thread(settings.tls.make_context)
    except ConfigError as error:
        raise AccessRefused(str(error)) from None


def warn_if_insecure(settings: Settings) -> None:
    """Once per start: what is switched off must be seen."""
    if settings.broker_url.scheme == "amqps" and settings.allow_insecure_tls:
        logger.warning(
            "allow_insecure_tls=True: whoever answers at %s is taken for RabbitMQ, and gets the password",
            settings.broker_url,
        )


def failed(error: ssl.SSLError, url: BrokerURL) -> AccessRefused | BrokerUnavailable:
    """Why no TLS connection came about; only `BrokerUnavailable` is worth another attempt."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return BrokerUnavailable(f"RabbitMQ at {url} went away while TLS was set up")
    text = _NOISE.sub("", str(error) or type(error).__name__)
    reason = "CERTIFICATE_UNTRUSTED" if getattr(error, "verify_code", 0) in _UNTRUSTED else error.reason
    hint = next((hint for words, hint in _HINTS if words in (reason or "")), "")
    return AccessRefused(f"TLS with {url} failed: {text}{hint}")
