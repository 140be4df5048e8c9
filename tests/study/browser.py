"""A browser, and MLflow's page for it to look at.

The browser is driven by its own protocol (https://chromedevtools.github.io/devtools-protocol), over
a websocket.
"""

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Debian's; None where there is none."""
NEEDS_A_BROWSER = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: apt-get install chromium"
)
PATIENCE_SECONDS = 90.0
CARDS = """JSON.stringify(
  [...document.querySelectorAll('[data-testid=experiment-view-compare-runs-card]')].map((card) => [
    card.innerText.split("\\n")[0],
    card.querySelectorAll(
      ".bars .point path, .scatterlayer .points path, .scatterlayer path.js-line"
    ).length + [...card.querySelectorAll(".parcoords canvas")].filter((canvas) =>
      canvas.width * canvas.height && canvas.getContext("2d")
        .getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)
    ).length,
  ])
)"""
"""Expression: the title of each chart on MLflow's page, and how much is drawn in it."""


@contextmanager
def serving(storage: Path) -> Iterator[str]:
    """The address of ``python -m study.ui`` on a storage folder."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "study.ui", "--storage", str(storage), "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as server:
        try:
            uri, give_up = f"http://127.0.0.1:{port}", time.monotonic() + 240
            while not answers(f"{uri}/health"):
                assert server.poll() is None and time.monotonic() < give_up
                time.sleep(0.3)
            yield uri
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def answers(url: str) -> bool:
    """Whether a server gives something there."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Tab:
    """A tab of the browser."""

    def __init__(self, end: aiohttp.ClientWebSocketResponse) -> None:
        self.end, self.calls = end, 0

    async def call(self, method: str, **given: Any) -> dict[str, Any]:
        """The browser's answer."""
        self.calls += 1
        await self.end.send_json({"id": self.calls, "method": method, "params": given})
        while True:
            answer = json.loads((await self.end.receive()).data)
            if answer.get("id") == self.calls:
                result: dict[str, Any] = answer["result"]
                return result

    async def value(self, expression: str) -> Any:
        """Value of an expression of JavaScript."""
        found = await self.call("Runtime.evaluate", expression=expression)
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Value of an expression of JavaScript as soon as it is true."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not (found := await self.value(expression)):
            assert time.monotonic() < give_up, expression
            await asyncio.sleep(0.3)
        return found

    async def cards(self, count: int) -> list[tuple[str, int]]:
        """Title of each chart of a view and how much is drawn in it, once there are ``count`` and
        nothing more is drawn, or after some time."""
        before, found = [], list[tuple[str, int]]()
        give_up = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up:
            before, found = found, json.loads(await self.value(CARDS))
            if len(found) >= count and all(drawn for _, drawn in found) and found == before:
                break
            await asyncio.sleep(1)
        return found

    async def picture(self) -> bytes:
        """The window, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def browsing(
    url: str, window: tuple[int, int], headers: Mapping[str, str] | None = None
) -> AsyncIterator[Tab]:
    """A tab that has gone to a page. ``headers`` go with each of its requests."""
    assert CHROMIUM is not None, "apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--hide-scrollbars", f"--window-size={window[0]},{window[1]}"),
            *(f"--user-data-dir={profile}", "--remote-debugging-port=0"),
            *("--remote-allow-origins=*", "about:blank"),
        ]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet) as browser:
            try:
                end = await _first_tab(Path(profile, "DevToolsActivePort"))
                async with (
                    aiohttp.ClientSession() as session,
                    session.ws_connect(end, max_msg_size=0) as opened,
                ):
                    tab = Tab(opened)
                    await tab.call("Network.enable")
                    await tab.call("Network.setExtraHTTPHeaders", headers=dict(headers or {}))
                    await tab.call("Page.navigate", url=url)
                    yield tab
            finally:
                browser.kill()


async def _first_tab(told: Path) -> str:
    """The address of a browser's first tab; the file ``told`` will hold the browser's port."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.3)
    port = told.read_text().splitlines()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
        (page, *_) = [tab for tab in json.load(answer) if tab["type"] == "page"]
    return str(page["webSocketDebuggerUrl"])
