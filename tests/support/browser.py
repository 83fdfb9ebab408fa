"""A page in Chromium, asked over its DevTools protocol: what it requests, what it looks like."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support import chromium

PATIENCE = 60.0  # seconds for an answer, on a busy machine


@dataclass(eq=False)
class Page:
    """One tab.

    Attributes:
        requested: every address that it asked for.
        complaints: what its console shows: errors, refused content.
    """

    connection: ClientConnection
    session: str = ""
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _answers: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _loaded: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = len(self._answers) + 1
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": parameters}
        await self.connection.send(
            json.dumps(command | ({"sessionId": self.session} if self.session else {}))
        )
        return await asyncio.wait_for(answer, PATIENCE)

    async def open(self, url: str, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Load an address; `scheme` is the preferred colour scheme."""
        mobile = width < 600
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), PATIENCE)

    async def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - any JSON
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def press(self, key: str) -> None:
        """Press and release a key: ``Tab``, ``Enter``."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    async def picture(self) -> bytes:
        """The whole page as a PNG."""
        answer = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    async def listen(self) -> None:
        async for text in self.connection:
            message = json.loads(text)
            if "id" in message:
                self._answered(message)
            else:
                self._noticed(message["method"], message["params"])

    def _answered(self, message: dict[str, Any]) -> None:
        if "error" in message:
            self._answers[message["id"]].set_exception(AssertionError(message["error"]))
        else:
            self._answers[message["id"]].set_result(message["result"])

    def _noticed(self, method: str, parameters: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters))
            case "Page.loadEventFired":
                self._loaded.set()


@asynccontextmanager
async def browser_page(folder: Path) -> AsyncGenerator[Page]:
    """Start Chromium with its profile in `folder`, and a tab; skip the test where there is none."""
    process = await asyncio.create_subprocess_exec(
        chromium.program(),
        *chromium.FLAGS,
        "--remote-debugging-port=0",
        f"--user-data-dir={folder / 'chromium'}",
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HOME": str(folder)},
    )
    try:
        address = await asyncio.wait_for(_address(process), PATIENCE)
        async with connect(address, max_size=None, ping_interval=None) as connection:
            page = Page(connection)
            listening = asyncio.create_task(page.listen())
            target = (await page.call("Target.createTarget", url="about:blank"))["targetId"]
            attached = await page.call("Target.attachToTarget", targetId=target, flatten=True)
            page.session = attached["sessionId"]
            for domain in ("Page", "Network", "Log", "Runtime"):
                await page.call(f"{domain}.enable")
            try:
                yield page
            finally:
                listening.cancel()
    finally:
        process.kill()
        await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(rb"DevTools listening on (ws://\S+)", line):
            return found[1].decode()
    raise AssertionError("Chromium did not start")
