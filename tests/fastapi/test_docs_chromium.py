"""The page in Chromium: it asks for nothing but itself, fits its window, and is reached by the keyboard.

The pictures are kept in the folder RMQ_TEST_SCREENSHOTS, if there is one.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from autosell_rmq_fastapi import rmq_docs_router
from tests.support.browser import Page, browser_page
from tests.support.documented_shop import documented_shop
from tests.support.waiting import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

WIDTHS = {"wide": 1280, "tablet": 820, "phone": 390}


@pytest.fixture
async def address() -> AsyncGenerator[str]:
    """A FastAPI app behind a prefix that it knows nothing of: its own, and a proxy's."""
    app = FastAPI(title="Shop", version="1.4.0", description="Takes orders and looks prices up.")
    app.include_router(rmq_docs_router(documented_shop()), prefix="/internal")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/internal/rmq/docs"
        server.should_exit = True
        await serving


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncGenerator[Page]:
    async with browser_page(tmp_path) as page:
        yield page


async def test_it_asks_for_nothing_but_itself(address: str, tab: Page) -> None:
    await tab.open(address)

    fetched = [url for url in tab.requested if not url.startswith("data:")]
    assert fetched == [address]
    assert tab.complaints == []
    assert await tab.evaluate("document.querySelector('h1').innerText") == "Shop 1.4.0"
    # Its own policy lets the style through.
    assert await tab.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "12px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_every_window(address: str, tab: Page, tmp_path: Path, scheme: str) -> None:
    kept = os.environ.get("RMQ_TEST_SCREENSHOTS")
    for name, width in WIDTHS.items():
        await tab.open(address, width=width, scheme=scheme)

        assert await tab.evaluate("document.documentElement.scrollWidth") <= width
        picture = await tab.picture()
        assert len(picture) > 50_000
        file = (Path(kept) if kept else tmp_path) / f"docs-{scheme}-{name}.png"
        await asyncio.to_thread(file.write_bytes, picture)


async def test_colours_follow_the_preference(address: str, tab: Page) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        await tab.open(address, scheme=scheme)
        colours.add(await tab.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert len(colours) == 2


async def test_it_is_reached_by_the_keyboard(address: str, tab: Page) -> None:
    await tab.open(address)
    await tab.press("Tab")
    assert await tab.evaluate("document.activeElement.innerText") == "Skip to the content"
    assert await tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    await tab.press("Enter")
    assert await tab.evaluate("location.hash") == "#content"

    await tab.evaluate("document.querySelector('summary').focus()")
    await tab.press("Enter")
    assert await tab.evaluate("document.querySelector('details').open") is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_ground(address: str, tab: Page, scheme: str) -> None:
    """WCAG's contrast of 4.5 for every colour that text has on the page."""
    await tab.open(address, scheme=scheme)
    await tab.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")

    assert await tab.evaluate(CONTRAST) == []


CONTRAST = """
(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map(value => value / 255)
    .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = element => {
    for (let it = element; it; it = it.parentElement) {
      const colour = numbers(getComputedStyle(it).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const weak = new Set();
  for (const element of document.body.querySelectorAll('*')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) weak.add(`${element.tagName}.${element.className}: ${contrast.toFixed(2)}`);
  }
  return [...weak];
})()
"""
