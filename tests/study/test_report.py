"""The page that a study leaves: everything in it, nothing taken for markup, and a browser draws it.

The browser is Debian's ``chromium``; where there is none, its test says so and is skipped.
"""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from study.analysis import results_file
from study.analysis.efficiency_types import Efficiency, FrontTrial
from study.analysis.result_types import StudyResults
from study.reporting import page as report_page
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome
from tests.study.browser import CHROMIUM
from tests.study.finished import SPACE, collected

SCRIPT = '<script>alert("&")</script>'
FIGURES = 3 + 1 + 3 + 1 + 4 + 4 + 1
"""Panels: scores, differences, Pareto, budget, learning curves and rates of four arms, parallel."""


class Tags(HTMLParser):
    """Which tags a page opens, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.outside: list[str] = []
        """Addresses that the page would fetch something from."""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = [value or "" for name, value in attrs if name in ("src", "href")]
        self.outside += [value for value in values if value != "data:,"]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(written: dict[str, Any], folder: Path) -> StudyResults:
    """The results that a file with this content has."""
    (folder / "read").mkdir()
    (folder / "read" / "results.json").write_text(json.dumps(written), encoding="utf-8")
    return results_file.read(StudyFolder(storage=folder, name="read"))


def page_of(folder: Path, found: StudyResults) -> Tags:
    return Tags(report_page.write(folder, found)[0].read_text(encoding="utf-8"))


def test_it_shows_what_was_found(found: StudyResults, tmp_path: Path) -> None:
    page = page_of(tmp_path, found)
    told = [SPACE.question, found.verdict, "not confirmed", "RuntimeError: <no> & never"]
    told += ["warn: two lookalikes", "On other set, which no model trained on", "not worse"]
    told += ["Only settings with memory<80GiB were eligible"]
    for part in told:
        assert part in page.text, part
    assert page.tags.count("svg") == FIGURES + len(SPACE.arms), "the legend has one an arm"
    assert page.outside == []


def test_text_of_users_is_never_markup(found: StudyResults, tmp_path: Path) -> None:
    text = json.dumps(results_file.plain(found))
    text = text.replace('"lora', f'"{json.dumps(SCRIPT)[1:-1]}').replace("lora.rank", SCRIPT[:8])
    hostile = json.loads(text)
    hostile["protocol"] |= {"begun": SCRIPT, "command": SCRIPT, SCRIPT: SCRIPT}
    hostile |= {"question": SCRIPT, "verdict": SCRIPT, "study": SCRIPT}
    hostile["trials"][0]["error"] = SCRIPT
    page = page_of(tmp_path, read(hostile, tmp_path))
    assert page.tags.count("script") == 1, "only the page's own"
    assert page.text.count('alert("&")') >= 20


def test_a_narrowed_space_is_told(found: StudyResults, tmp_path: Path) -> None:
    assert "narrowed" not in page_of(tmp_path, found).text
    asked = {**found.protocol["settings"], "arm": "lora", "set": ["lora.rank=4,8"]}
    narrowed = replace(found, protocol={**found.protocol, "settings": asked})
    text = page_of(tmp_path, narrowed).text
    assert "The search space was narrowed by --arm lora --set lora.rank=4,8." in text


def test_a_trade_off_is_told(found: StudyResults, tmp_path: Path) -> None:
    trial = FrontTrial(
        trial="abc",
        arm=SCRIPT,
        parameters={"lora.rank": 2},
        validation_loss=1.25,
        validation_percent=None,
        costs={"peak_memory_gib": 0.5},
    )
    traded = replace(found.efficiency, front=(trial,))
    page = page_of(tmp_path, replace(found, efficiency=traded))
    for part in ("The trade-off that was searched for", "peak memory gib", "1.2500", SCRIPT):
        assert part in page.text, part
    assert "trade-off" not in page_of(tmp_path, found).text


def test_what_ran_otherwise_than_it_should_is_told_once(
    found: StudyResults, tmp_path: Path
) -> None:
    assert "otherwise than it should" not in page_of(tmp_path, found).text
    arms = list(dict.fromkeys(trial.arm for trial in found.trials))[:2]
    trials = [replace(t, remark=SCRIPT if t.arm in arms else "") for t in found.trials]
    count = sum(trial.arm in arms for trial in trials)
    text = page_of(tmp_path, replace(found, trials=tuple(trials))).text
    assert text.count(f"{count} trials ({', '.join(arms)}): {SCRIPT}") == 1


def test_a_study_in_which_nothing_worked_has_a_report_too(
    found: StudyResults, tmp_path: Path
) -> None:
    nothing = replace(
        found,
        arms=tuple(replace(a, test=None, best=None, seeds=(), costs={}) for a in found.arms),
        comparisons=(),
        ood=(),
        trials=(),
        baselines=replace(found.baselines, untuned=None),
        efficiency=Efficiency(
            pareto=dict.fromkeys(found.efficiency.pareto, ()),
            budget=None,
            learning_rates=dict.fromkeys(SPACE.arms),
        ),
    )
    page = page_of(tmp_path, nothing)
    assert page.text.count("not confirmed") == 5
    assert page.tags.count("svg") == 5, "the legend's"


def test_tables_lie_beside_it(found: StudyResults, tmp_path: Path) -> None:
    files = {
        path.name: path.read_text(encoding="utf-8") for path in report_page.write(tmp_path, found)
    }
    rows = list(csv.DictReader(io.StringIO(files["results.csv"])))
    assert [row["arm"] for row in rows[:5]] == [arm.arm for arm in found.arms]
    assert float(rows[0]["overall_mean"]) == found.arms[0].overall.mean
    assert len(list(csv.DictReader(io.StringIO(files["comparisons.csv"])))) == 6 * 5
    assert len(list(csv.DictReader(io.StringIO(files["trials.csv"])))) == len(found.trials)
    latex = files["results.tex"]
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    best = found.arms[0]
    assert f"{best.arm} & {best.overall.mean:.1f} {{" in latex


def test_latex_is_escaped(found: StudyResults, tmp_path: Path) -> None:
    text = json.dumps(results_file.plain(found)).replace('"layernorm"', '"50%_of_{it} & more"')
    report_page.write(tmp_path, read(json.loads(text), tmp_path))
    latex = (tmp_path / "results.tex").read_text(encoding="utf-8")
    assert r"50\%\_of\_\{it\} \& more &" in latex


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-m", "study.report", *arguments]
    return subprocess.run(given, check=False, capture_output=True, text=True, timeout=120)


def test_the_command_writes_it_anew(found: StudyResults, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    old = {**found.protocol, "command": "x --tracking-uri postgresql://mlflow:planted@db"}
    results_file.write(tmp_path / "one", replace(found, protocol=old))
    done = command("one", "--storage", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "one" / "report.html")
    page = Tags((tmp_path / "one" / "report.html").read_text())
    assert found.verdict in page.text
    assert "--tracking-uri postgresql://mlflow:***@db" in page.text, "older ones had the password"
    said = command("oen", "--storage", str(tmp_path))
    assert said.returncode == 2 and "did you mean 'one'?" in said.stderr
    results_file.write(tmp_path / "one", replace(found, version=99))
    said = command("one", "--storage", str(tmp_path))
    assert said.returncode == 2 and "is of version 99; this reads 1 and 2" in said.stderr


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
    """What a browser says of the page."""
    assert CHROMIUM is not None
    page = report_page.write(folder, found)[0]
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
    assert seen["dark"] is dark
    assert seen["paper"] == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


@NEEDS_A_BROWSER
def test_a_browser_draws_a_study_that_confirmed_nothing(tmp_path: Path) -> None:
    nothing = collected(tmp_path, trials=5, lost=lambda spec: Outcome.DIVERGED)
    seen = seen_of(nothing, tmp_path)
    assert seen["figures"] == 0 and seen["colours"] == len(SPACE.arms)
