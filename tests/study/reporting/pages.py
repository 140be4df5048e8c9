"""What tests of the page read it with."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from study.analysis import results_file
from study.analysis.result_types import StudyResults
from study.storage.study_folder import StudyFolder

FIGURES = 3 + 1 + 1 + 4 + 3 + 1 + 4 + 4 + 1
"""Panels: scores, differences, groups of questions, calibration, Pareto, budget, learning curves
and rates of four arms, parallel."""


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
