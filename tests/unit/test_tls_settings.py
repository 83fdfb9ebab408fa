"""The TLS settings: what does not fit and files that cannot be used are refused in the constructor."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosell_rmq import (
    ConfigError,
    RabbitMQ,
    RabbitMQConsumer,
    RabbitMQProducer,
    Settings,
    SyncRabbitMQProducer,
)
from tests.support.certificates import Authority

URL = "amqps://shop:pw@rabbit.example/"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    authority.issue("shop", use="clientAuth")
    authority.issue("other", use="clientAuth")
    authority.issue("locked", use="clientAuth", password="s3cret")
    (folder / "junk").write_text("no certificate")
    (folder / "empty").touch()
    return folder


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tls_ca_file": "nowhere"}, "tls_ca_file='{0}/nowhere': No such file or directory"),
    ({"tls_ca_file": ""}, "tls_ca_file=''"),
    ({"tls_ca_file": "junk"}, "tls_ca_file='{0}/junk': there is no certificate in it"),
    ({"tls_ca_file": "empty"}, "tls_ca_file='{0}/empty': there is no certificate in it"),
    ({"tls_ca_file": "."}, "Is a directory"),
    ({"tls_ca_file": "a\0b"}, "null"),
    ({"tls_ca_file": 5}, "tls_ca_file=5: expected the path of a file"),
    ({"tls_cert_file": "nowhere", "tls_key_file": "shop.key"}, "tls_cert_file='{0}/nowhere': No such file"),
    ({"tls_cert_file": "shop.pem", "tls_key_file": "nowhere"}, "tls_key_file='{0}/nowhere': No such file"),
    ({"tls_cert_file": "shop.pem", "tls_key_file": "other.key"}, "the key is not the one of the certificate"),
    ({"tls_cert_file": "shop.pem"}, "tls_cert_file='{0}/shop.pem': no certificate with its key"),
    ({"tls_cert_file": "junk", "tls_key_file": "shop.key"}, "tls_cert_file='{0}/junk', tls_key_file="),
    ({"tls_cert_file": "locked.pem", "tls_key_file": "locked.key"}, "needs its tls_key_password"),
    (
        {"tls_cert_file": "locked.pem", "tls_key_file": "locked.key", "tls_key_password": "guessed"},
        "needs its tls_key_password",
    ),
    ({"tls_key_file": "shop.key"}, "go with tls_cert_file"),
    ({"tls_key_password": "guessed"}, "go with tls_cert_file"),
    ({"tls_cert_file": "shop.pem", "tls_key_file": "shop.key", "tls_key_password": ""}, "non-empty string"),
    ({"tls_cert_file": "shop.pem", "tls_key_file": "shop.key", "tls_key_password": 5}, "non-empty string"),
    ({"allow_insecure_tls": "False"}, "allow_insecure_tls='False': expected True or False"),
    ({"allow_insecure_tls": 1}, "allow_insecure_tls=1: expected True or False"),
    ({"tls_ca_file": "authority.pem", "allow_insecure_tls": True}, "leave one out"),
]


def placed(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        name: str(folder / value) if name.endswith("_file") and isinstance(value, str) and value else value
        for name, value in given.items()
    }


@pytest.mark.parametrize(("given", "said"), WRONG, ids=str)
def test_a_wrong_setting_is_refused_by_name(given: dict[str, Any], said: str, files: Path) -> None:
    faces: tuple[Callable[..., object], ...] = (
        RabbitMQ,
        RabbitMQConsumer,
        RabbitMQProducer,
        SyncRabbitMQProducer,
    )
    for face in faces:
        with pytest.raises(ConfigError) as refused:
            face(URL, **placed(given, files))
        assert said.format(files) in str(refused.value)
        assert "guessed" not in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("setting", ["tls_ca_file", "tls_cert_file", "tls_key_file"])
def test_files_beside_an_address_that_encrypts_nothing(setting: str, files: Path) -> None:
    """Somebody believes that there is TLS: there is none."""
    with pytest.raises(ConfigError, match=f"{setting}=.*nothing of amqp:// is encrypted"):
        RabbitMQ("amqp://shop:pw@rabbit.example/", **{setting: files / "authority.pem"})  # type: ignore[arg-type]


def test_a_broker_in_memory_takes_the_settings_of_a_real_one(files: Path) -> None:
    RabbitMQ("memory://", tls_ca_file=files / "authority.pem")


def test_by_default_chain_and_name_are_verified() -> None:
    context = Settings(url=URL).tls.make_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_an_authority_of_ones_own_is_trusted_alone(files: Path) -> None:
    context = Settings(url=URL, tls_ca_file=files / "authority.pem").tls.make_context()

    assert [ca["subject"] for ca in context.get_ca_certs()] == [((("commonName", "authority"),),)]


def test_a_client_certificate_changes_nothing_of_the_verification(files: Path) -> None:
    context = Settings(
        url=URL, tls_cert_file=files / "shop.pem", tls_key_file=files / "shop.key"
    ).tls.make_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_the_password_of_the_key_is_not_shown(files: Path) -> None:
    settings = Settings(
        url=URL,
        tls_cert_file=files / "locked.pem",
        tls_key_file=files / "locked.key",
        tls_key_password="s3cret",
    )

    for thing in (settings, settings.tls, RabbitMQ(URL), settings.broker_url):
        assert "s3cret" not in f"{thing!r} {thing}"
