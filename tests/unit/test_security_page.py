"""docs/security.md says what is so."""

import re
from pathlib import Path

import pytest

from autosell_rmq import RabbitMQ
from autosell_rmq.config import SETTING_NAMES, HandlerOptions
from tests.acceptance.markdown import ROOT, blocks
from tests.support.certificates import Authority

PAGE = ROOT / "docs" / "security.md"


def test_its_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path, "ca")
    authority.issue("shop", use="clientAuth")
    monkeypatch.chdir(tmp_path)
    [snippet] = blocks(PAGE, "python")
    names: dict[str, object] = {}

    exec(snippet.code, names)

    rmq = names["rmq"]
    assert isinstance(rmq, RabbitMQ)
    assert rmq.settings.tls_ca_file == "ca.pem"


def test_the_settings_that_it_names_exist() -> None:
    named = set(re.findall(r"`(\w+)=", PAGE.read_text(encoding="utf-8")))

    assert named == {"accept_replies", "allow_insecure_tls", "redact", "reply_to_allowed"}
    assert named <= SETTING_NAMES | set(HandlerOptions.__dataclass_fields__)
