"""Takes the README's picture of MLflow: ``python -m tests.study.screenshot STORAGE STUDY``.

The page that ``python -m study.ui STUDY`` gives the link to, in Debian's ``chromium``: its box plot
of the arms' scores on test, without MLflow's menu and its assistant, in few colours. The browser is
driven by its own protocol (https://chromedevtools.github.io/devtools-protocol), over a websocket.
"""

import asyncio
import base64
import io
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

from study.config.study_json import identity, read
from study.storage.paths import MLFLOW_ARTIFACTS
from study.storage.study_folder import StudyFolder
from study.tracking import mlflow_store
from study.tracking.mlflow_runs import MlflowRuns
from tests.study.browser import CHROMIUM, serving

OUT = Path(__file__).parents[2] / ".github" / "mlflow.png"
WINDOW = (1500, 820)
PAGE = (198, 8, 1110, 670)
"""Left, top, right and bottom of what the study is in."""
COLOURS = 64
PATIENCE_SECONDS = 60.0
AXIS = "[...document.querySelectorAll('button')].find(e => e.innerText.includes('Select param'))"


def main(storage: Path, study: str) -> None:
    """Write the picture."""
    assert CHROMIUM is not None, "apt-get install chromium"
    experiment = Path(read(StudyFolder(storage=storage, name=study)).space).stem
    runs = MlflowRuns(
        mlflow_store.default_uri(storage),
        experiment=experiment,
        artifacts=storage / MLFLOW_ARTIFACTS,
    )
    parent = runs.study(study, identity(storage / study))
    assert parent is not None
    with serving(storage) as uri, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        page = uri + runs.comparison(parent.info.run_id)
        command = [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--hide-scrollbars", f"--window-size={WINDOW[0]},{WINDOW[1]}"),
            *(f"--user-data-dir={own}", "--remote-debugging-port=0", "--remote-allow-origins=*"),
        ]
        quiet = subprocess.DEVNULL
        with subprocess.Popen([*command, page], stdout=quiet, stderr=quiet) as browser:
            try:
                shot = asyncio.run(box_plot(Path(own, "DevToolsActivePort")))
            finally:
                browser.kill()
    OUT.parent.mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(shot)).crop(PAGE).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(OUT, optimize=True)
    print(OUT, OUT.stat().st_size // 1024, "KiB")


async def box_plot(told: Path) -> bytes:
    """Choose what the plot shows; a picture of the window, as PNG. ``told`` holds the port."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not told.exists():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.3)
    port = told.read_text().splitlines()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
        (page, *_) = [tab for tab in json.load(answer) if tab["type"] == "page"]
    url = page["webSocketDebuggerUrl"]
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as end:
        tab = Tab(end)
        await tab.click(
            "[...document.querySelectorAll('[role=tab]')].find(e => /Box/.test(e.innerText))"
        )
        for value in ("arm", "test.overall_percent"):
            await tab.click(AXIS)
            options = "[...document.querySelectorAll('[role=option]')]"
            await tab.click(f"{options}.find(e => e.innerText.trim() == '{value}')")
        await asyncio.sleep(3)  # it is drawn
        found = await tab.call("Page.captureScreenshot")
        return base64.b64decode(found["data"])


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

    async def click(self, element: str) -> None:
        """Click on what an expression finds, once it is there."""
        where = (
            f"(() => {{ const e = {element}; if (!e) return '';"
            "e.scrollIntoView({block: 'nearest'}); const b = e.getBoundingClientRect();"
            "return JSON.stringify([b.x + b.width / 2, b.y + b.height / 2]) })()"
        )
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not (
            at := (await self.call("Runtime.evaluate", expression=where))["result"]["value"]
        ):
            assert time.monotonic() < give_up, element
            await asyncio.sleep(0.3)
        await asyncio.sleep(1)  # it has come to rest
        x, y = json.loads(at)
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", **event)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
