"""``report.html``: what a study found, on one page that needs no other file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "report.html"
TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write(folder: Path, results: Mapping[str, Any]) -> Path:
    """Write the report of ``results`` (see ``study.results``); whole or not at all."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    path = folder / FILE
    partial = path.with_suffix(f".partial-{os.getpid()}")
    partial.write_text(template.render(r=results, number=_number), encoding="utf-8")
    partial.replace(path)
    return path


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None or value != value else f"{value:,.{digits}f}"
