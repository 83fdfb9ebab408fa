"""The page as HTML: what it shows, its links, and that nothing of a docstring is ever taken for markup."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pydantic
import pytest

from autosell_rmq import Binding, RabbitMQ, asyncapi_document
from autosell_rmq_fastapi.docs.markup import Markup, joined, tag
from autosell_rmq_fastapi.docs.page import CONTENT_SECURITY_POLICY, page
from tests.support.documented_shop import documented_shop

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>`<b>`&amp;</style>"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reading(HTMLParser):
    """Elements with their attributes, all text, and whether every element is closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, found in self.elements if (value := found.get(attribute)) is not None]


def page_of(rmq: RabbitMQ, title: str = "Shop") -> str:
    return page(asyncapi_document(rmq, title=title, version="1.4.0", description="Takes orders."))


@pytest.fixture(scope="module")
def shop() -> Reading:
    return Reading(page_of(documented_shop()))


def test_it_shows_queues_events_dead_letters_and_schemas(shop: Reading) -> None:
    for text in (
        "amqp://rabbit.internal:5673/shop",
        "Create an order and reserve its stock.",
        "request and reply",
        "audit log/2",
        "order.* of the topic exchange shop.events",
        "everything of the fanout exchange shop.news",
        "Its stock is reserved.",
        "orders_dlq",
        "5, after 1 s, doubling up to 1 min",
        "90 s",
        "Where the invoice goes.",
        "2 characters · by default",
        "1 to 50 items",
        "matches ^[0-9]{5}$",
    ):
        assert text in shop.text, text


def test_an_example_of_a_reply_is_what_travels(shop: Reading) -> None:
    assert '"success": true,\n  "data": {\n    "number": 1,' in shop.text
    assert '"correlation_id": "order-42"' in shop.text


def test_inline_code_of_a_docstring_is_code() -> None:
    html = page_of(documented_shop())

    assert "<code>correlation_id</code>, it gets the same reply." in html
    assert "looked up in <code>prices</code>." in html


def test_links_lead_to_sections_of_the_page(shop: Reading) -> None:
    links, ids = shop.values("href"), shop.values("id")

    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert len(ids) == len(set(ids))
    assert "#schema-Address" in links


def test_it_names_no_other_place(shop: Reading) -> None:
    outside = {link for link in shop.values("href") if not link.startswith(("#", "data:"))}

    assert outside == {"asyncapi.json", "asyncapi.yaml"}
    assert shop.values("src") == []
    style = page_of(documented_shop()).partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"url\(|@import|@font-face", style)


def test_it_has_no_script(shop: Reading) -> None:
    assert "script" not in {name for name, _ in shop.elements}
    assert not [key for _, found in shop.elements for key in found if key.startswith("on")]


def test_the_policy_allows_its_style_and_nothing_else() -> None:
    style = page_of(documented_shop()).partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert f"style-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert "script-src" not in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    hostile = '"><b>&'

    assert tag("a", hostile, Markup("<i></i>"), href=hostile, title=None) == (
        '<a href="&quot;&gt;&lt;b&gt;&amp;">&quot;&gt;&lt;b&gt;&amp;<i></i></a>'
    )
    assert joined(tag("p", class_="a"), hostile) == '<p class="a"></p>&quot;&gt;&lt;b&gt;&amp;'


def hostile_shop() -> RabbitMQ:
    model = pydantic.create_model(
        "Hostile",
        __doc__=HOSTILE,
        field=(str, pydantic.Field(HOSTILE, description=HOSTILE, alias=HOSTILE, pattern=".*<i>.*|.*")),
        const=(str, pydantic.Field(examples=[HOSTILE])),
    )

    async def handler(payload: object) -> object:
        raise NotImplementedError

    handler.__doc__ = f"{HOSTILE}\n\n{HOSTILE}"
    handler.__qualname__ = HOSTILE
    handler.__annotations__ = {"payload": model, "return": dict[str, model]}  # type: ignore[valid-type]
    rmq = RabbitMQ("amqp://u:p@host/%3Cb%3E")
    rmq.handler("orders", bind=Binding("events", HOSTILE), arguments={HOSTILE: HOSTILE})(handler)
    rmq.publishes("events", f"{HOSTILE}#", model, description=HOSTILE)
    return rmq


def test_nothing_of_the_app_is_taken_for_markup() -> None:
    found = Reading(page_of(hostile_shop(), title=HOSTILE))

    names = {name for name, _ in found.elements}
    assert names.isdisjoint({"script", "img", "b", "i"})
    assert not [key for _, attributes in found.elements for key in attributes if key.startswith("on")]
    assert found.text.count("alert(1)</script>") > 10
    assert not [link for link in found.values("href") if "alert" in link and not link.startswith("#")]


@pytest.mark.parametrize("make", [documented_shop, hostile_shop, lambda: RabbitMQ("memory://")])
def test_no_section_is_empty(make: Callable[[], RabbitMQ]) -> None:
    html = page_of(make())

    assert "<ul></ul>" not in html
    assert "<tbody></tbody>" not in html


def test_a_model_that_contains_itself_is_linked_to_itself() -> None:
    class Tree(pydantic.BaseModel):
        children: list["Tree"]

    async def grow(tree: Tree) -> None: ...

    rmq = RabbitMQ("memory://")
    rmq.handler("trees")(grow)
    html = page_of(rmq)

    assert '<a href="#schema-Tree">Tree</a>' in html
    assert Reading(html).text.count('"children": []') == 1


def test_a_type_without_schema_is_said_in_words() -> None:
    async def handle(payload: dict[str, Any]) -> pydantic.InstanceOf[HTMLParser]:
        raise NotImplementedError

    rmq = RabbitMQ("memory://")
    rmq.handler("orders")(handle)

    assert "no JSON Schema" in Reading(page_of(rmq)).text
