"""A browser draws the page.

It is Debian's ``chromium``; where there is none, the tests say so and are skipped.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from study.analysis.result_types import StudyResults
from study.reporting import page as report_page
from study.trials.record import Outcome
from tests.study.browser import CHROMIUM
from tests.study.finished import SPACE, collected
from tests.study.reporting.pages import FIGURES

PROBE = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", () => {
  const size = (svg) => { const box = svg.getBBox(); return box.width > 100 && box.height > 40; };
  const mark = document.querySelector("main svg .mark");
  const at = mark?.getBoundingClientRect();
  mark?.dispatchEvent(new PointerEvent("pointermove",
    { bubbles: true, clientX: at.x + 2, clientY: at.y + 2 }));
  const told = document.getElementById("tip").textContent;
  document.querySelector("nav button").click();
  const dim = [...document.querySelectorAll("main svg .mark:not(.on)")];
  const style = getComputedStyle(document.body);
  document.body.dataset.probe = JSON.stringify({
    errors,
    figures: document.querySelectorAll("main svg").length,
    drawn: [...document.querySelectorAll("main svg")].filter(size).length,
    colours: new Set([...document.querySelectorAll("nav .mark")]
      .map((m) => getComputedStyle(m).fill)).size,
    told,
    chosen: document.querySelectorAll("main svg .on").length,
    dimmed: dim.length > 0,
    cut: [...document.querySelectorAll(".scroll")].slice(0, 1)
      .some((table) => table.scrollWidth > table.clientWidth),
    wide: document.documentElement.scrollWidth > innerWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    paper: style.backgroundColor,
  });
});
</script>
"""


NEEDS_A_BROWSER = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: apt-get install chromium"
)


def seen_of(found: StudyResults, folder: Path, *, dark: bool = False) -> dict[str, Any]:
    """What a browser says of a study's page."""
    return seen_of_page(report_page.write(folder, found)[0], folder, dark=dark)


def seen_of_page(page: Path, folder: Path, *, dark: bool = False) -> dict[str, Any]:
    """What a browser says of a page, whose profile is in ``folder``."""
    assert CHROMIUM is not None
    probed = page.read_text(encoding="utf-8").replace("<head>", "<head>" + PROBE, 1)
    page.write_text(probed, encoding="utf-8")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *(f"--user-data-dir={folder / 'profile'}", "--window-size=1100,900"),
            *(f"--blink-settings=preferredColorScheme={0 if dark else 1}",),
            *("--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom"),
            page.as_uri(),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert said is not None, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(
        said[1].replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&")
    )
    assert seen["errors"] == [] and "CONSOLE" not in done.stderr
    assert not seen["wide"], "the page itself never scrolls sideways"
    return seen


@NEEDS_A_BROWSER
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_draws_it(found: StudyResults, tmp_path: Path, dark: bool) -> None:
    seen = seen_of(found, tmp_path, dark=dark)
    assert seen["figures"] == seen["drawn"] == FIGURES
    assert seen["colours"] == len(SPACE.arms)
    assert "overall: " in seen["told"], "a pointer over a mark shows what it stands for"
    assert seen["chosen"] > 0 and seen["dimmed"]
    assert not seen["cut"], "the table of results is seen as a whole"
    assert seen["dark"] is dark
    assert seen["paper"] == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


@NEEDS_A_BROWSER
def test_a_browser_draws_a_study_that_confirmed_nothing(tmp_path: Path) -> None:
    nothing = collected(tmp_path, trials=5, lost=lambda spec: Outcome.DIVERGED)
    seen = seen_of(nothing, tmp_path)
    assert seen["figures"] == 0 and seen["colours"] == len(SPACE.arms)
