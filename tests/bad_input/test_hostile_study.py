"""A study of which every text is hostile: to a terminal, HTML, a spreadsheet, a shell, SQL, paths.

It is what somebody else's storage may hold. All commands that read studies read it, and a browser
opens its report.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from study import clean, delete, export, report, status
from study import list as list_studies
from study.analysis import results_file
from study.config.begun_study import begun_study
from study.storage import journal_reader
from study.storage.study_folder import JOURNAL, REPORT, RESULTS, SETTINGS, StudyFolder
from tests.bad_input.test_refusals import state
from tests.stored_studies.test_stored_studies import unpack
from tests.study.browser import NEEDS_A_BROWSER, browsing
from trainables.errors import BadInput

TRAP = "window.trapped=1"
HOSTILE = (
    f'</script><script>{TRAP}</script><img src=x onerror="{TRAP}"> \x1b[2J\x9b31m\u202e [/red] '
    "{{ 7*7 }} '; DROP TABLE runs; -- $(touch pwned) `touch pwned` ../../../pwned"
)
"""What every text ends with."""
FORMULA = "=cmd|' /C calc'!A0 "
"""What every text begins with."""


def hostile(content: Any, reads: Callable[[Any], object]) -> Any:
    """A JSON document in which each text is hostile, in values and keys alike, that can be: with
    which ``reads`` still accepts it."""

    def made(content: Any, texts: list[str]) -> Any:
        instead = {text: f"{FORMULA}{text}{HOSTILE}" for text in texts}
        changed = _replaced(content, instead)
        try:
            reads(changed)
            return changed
        except BadInput as error:
            assert str(error).isprintable()
        if len(texts) == 1:
            return content
        half = len(texts) // 2
        return made(made(content, texts[:half]), texts[half:])

    return made(content, sorted(set(_texts(content))))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for held in value.values():
            yield from _texts(held)
    elif isinstance(value, list):
        for held in value:
            yield from _texts(held)


def _replaced(value: Any, instead: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {instead.get(key, key): _replaced(held, instead) for key, held in value.items()}
    if isinstance(value, list):
        return [_replaced(held, instead) for held in value]
    return instead.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with a hostile study that has ended, and one that has not."""
    storage = unpack(tmp_path_factory.mktemp("hostile"))
    for name in ("finished", "half"):
        folder, file = storage / name, storage / name / SETTINGS

        def reads(content: Any, folder: Path = folder, file: Path = file) -> None:
            file.write_text(json.dumps(content))
            begun_study(folder)

        found = hostile(json.loads(file.read_text()), reads)
        file.write_text(json.dumps(found))
    results = storage / "finished" / RESULTS

    def reads_results(content: Any) -> None:
        results.write_text(json.dumps(content))
        results_file.read(StudyFolder(storage=storage, name="finished"))

    found = hostile(json.loads(results.read_text()), reads_results)
    results.write_text(json.dumps(found))
    assert sum(HOSTILE in text for text in set(_texts(found))) > 40
    journal = storage / "half" / JOURNAL
    lines = [json.loads(line) for line in journal.read_text().splitlines()]

    def reads_journal(content: Any) -> None:
        text = "".join(json.dumps(line) + "\n" for line in content)
        journal_reader.read(text.encode(), JOURNAL)

    lines = hostile(lines, reads_journal)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert sum(HOSTILE in text for text in set(_texts(lines))) > 10
    return storage


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (list_studies.main, []),
        (list_studies.main, ["--json"]),
        (status.main, ["finished"]),
        (status.main, ["half"]),
        (status.main, ["half", "--json"]),
        (report.main, ["finished"]),
        (delete.main, ["finished", "--dry-run"]),
        (delete.main, ["half", "--dry-run"]),
        (clean.main, ["--dry-run"]),
        (export.main, ["finished", "--arm", "../../x"]),
        (export.main, ["finished"]),
    ],
)
def test_no_command_obeys_it(
    storage: Path,
    main: Callable[[list[str]], int],
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    outside = {name: held for name, held in state(storage).items() if "finished/" not in name}
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([*arguments, "--storage", str(storage)])
    assert code in (0, 2)
    for line in said.getvalue().splitlines():
        assert line.isprintable(), "it acts on the terminal"
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|\b49\b", said.getvalue()), "a template ran"
    assert not list(storage.parent.glob("pwned*")) and not list(tmp_path.iterdir())
    after = {name: held for name, held in state(storage).items() if "finished/" not in name}
    after.pop("finished", None)
    outside.pop("finished", None)
    assert after == outside, "it wrote elsewhere"


def test_a_spreadsheet_sees_no_formula(storage: Path) -> None:
    assert report.main(["finished", "--storage", str(storage)]) == 0
    for file in (storage / "finished").glob("*.csv"):
        with file.open(newline="", encoding="utf-8") as opened:
            for row in csv.reader(opened):
                for cell in row:
                    number = re.fullmatch(r"-?[\d.e+-]*", cell)
                    assert number or not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell


@NEEDS_A_BROWSER
@pytest.mark.long
def test_its_report_runs_no_script_but_its_own(storage: Path, tmp_path: Path) -> None:
    """Nor does one into which markup has got, by its content security policy. The trap works: it
    springs where there is no policy."""
    assert report.main(["finished", "--storage", str(storage)]) == 0
    written = (storage / "finished" / REPORT).read_text("utf-8")
    assert html.escape(TRAP) in written or TRAP in written
    markup = f'<body><img src=x onerror="{TRAP}"><script>{TRAP}</script><p onclick="{TRAP}">x</p>'
    broken = written.replace("<body>", markup, 1)
    open_to_all = re.sub(r"<meta http-equiv=[^>]*>", "", broken, count=1)
    assert len({written, broken, open_to_all}) == 3
    pages = {"report": written, "broken": broken, "open": open_to_all}
    found = {}
    for name, content in pages.items():
        (tmp_path / f"{name}.html").write_text(content, encoding="utf-8")
        found[name] = asyncio.run(_opened((tmp_path / f"{name}.html").as_uri()))
    assert found["report"] == {"trapped": False, "scripts": 1, "images": 0, "works": True}
    assert found["broken"] == {"trapped": False, "scripts": 2, "images": 1, "works": True}
    assert found["open"]["trapped"], "the trap is one"


async def _opened(url: str) -> dict[str, Any]:
    """What became of a page in a browser, after a click on its first button."""
    async with browsing(url, (1100, 900)) as tab:
        await tab.until("document.readyState == 'complete'")
        await tab.value("document.querySelector('p[onclick]')?.click()")
        await tab.value("document.querySelector('nav button')?.click()")
        await asyncio.sleep(0.5)
        said: str = await tab.value(
            "JSON.stringify({trapped: Boolean(window.trapped), scripts: document.scripts.length,"
            " images: document.images.length,"
            " works: document.querySelectorAll('main svg .on').length > 0})"
        )
        found: dict[str, Any] = json.loads(said)
        return found
