"""The texts of the app: every one is translated, the compiled files are those of the sources, and shipped."""

import ast
import gettext
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone, translation
from django.utils.translation import ngettext
from hatchling.builders.wheel import WheelBuilder

import autosell_rmq_django
from autosell_rmq_django.models import IdempotencyRecord

APP = Path(autosell_rmq_django.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ["en", "ru"]

type Key = tuple[str, str]  # the text, and its plural


def texts_of_the_code() -> Iterator[Key]:
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                words = [
                    a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
                ]
                if node.func.id == "_":
                    yield words[0], ""
                elif node.func.id == "ngettext":
                    yield words[0], words[1]
    for path in APP.rglob("*.html"):
        for text in re.findall(r'{% translate "(.+?)" %}', path.read_text(encoding="utf-8")):
            yield text, ""


def texts_of_the_source(language: str) -> dict[Key, list[str]]:
    """The entries of the .po file, without a tool that may not be there."""
    path = APP / "locale" / language / "LC_MESSAGES" / "django.po"
    entries = {}
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line.partition(" ")[::2] for line in block.splitlines() if line.startswith("msg")]
        strings = {name: str(ast.literal_eval(value)) for name, value in lines}
        forms = [value for name, value in strings.items() if name.startswith("msgstr")]
        if strings["msgid"]:
            entries[strings["msgid"], strings.get("msgid_plural", "")] = forms
    return entries


def compiled(language: str) -> gettext.GNUTranslations:
    with (APP / "locale" / language / "LC_MESSAGES" / "django.mo").open("rb") as file:
        return gettext.GNUTranslations(file)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated_and_none_is_left_over(language: str) -> None:
    entries = texts_of_the_source(language)

    assert set(entries) == set(texts_of_the_code())
    assert [key for key, forms in entries.items() if not all(forms)] == []
    assert "fuzzy" not in (APP / "locale" / language / "LC_MESSAGES" / "django.po").read_text("utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_are_kept(language: str) -> None:
    holders = re.compile(r"%\(\w+\)[sd]|%[sd]")
    wrong = {
        text
        for (text, _), forms in texts_of_the_source(language).items()
        for form in forms
        if holders.findall(form) != holders.findall(text)
    }

    assert wrong == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_file_is_up_to_date(language: str) -> None:
    """Else: ``django-admin compilemessages`` in the app's folder."""
    translations = compiled(language)
    for (text, plural), forms in texts_of_the_source(language).items():
        if plural:
            assert {translations.ngettext(text, plural, n) for n in range(200)} <= set(forms)
        else:
            assert translations.gettext(text) == forms[0]


def test_the_wheel_has_what_is_not_python(tmp_path: Path) -> None:
    [path] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())

    kinds = {".po", ".mo", ".html", ".css"}
    wanted = {f"{APP.name}/{p.relative_to(APP)}" for p in APP.rglob("*") if p.suffix in kinds}
    assert len(wanted) >= 7
    assert wanted <= names


def test_names_and_plurals_in_russian() -> None:
    with translation.override("ru"):
        assert str(IdempotencyRecord._meta.verbose_name_plural) == "записи идемпотентности"
        assert str(IdempotencyRecord.State.DONE.label) == "выполнено"
        assert [
            ngettext("%d message is due now.", "%d messages are due now.", n) % n for n in (1, 2, 5, 21)
        ] == [
            "1 сообщение будет отправлено сейчас.",
            "2 сообщения будут отправлены сейчас.",
            "5 сообщений будут отправлены сейчас.",
            "21 сообщение будет отправлено сейчас.",
        ]


@pytest.mark.django_db
def test_the_admin_is_russian() -> None:
    IdempotencyRecord.objects.create(key="k", queue="orders", state="done", expires=timezone.now())
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    with translation.override("ru"):
        text = client.get("/admin/autosell_rmq/idempotencyrecord/").content.decode()

    for words in ("Записи идемпотентности", "очередь", "действует до", "выполнено", "часть correlation id"):
        assert words.lower() in text.lower()
