"""``python -m study.compare STUDY STUDY ...``: compare studies on the same test questions.

Studies of several base models, training data or search spaces are compared question by question,
in one table and a report. Studies that were tested on other questions, or decided by other rules,
are refused.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from study.config.deployment import Storage
from study.storage import faults
from study.storage.paths import nearest
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse


@dataclass(frozen=True, kw_only=True)
class Request(Storage):
    """The studies to compare, and where the report goes."""

    studies: list[str] = option(
        positional=True, several=True, metavar="STUDY", help="names of two studies or more"
    )
    out: Path | None = option(
        None, metavar="DIR", help="folder for the report and its tables", default="none is written"
    )
    json: bool = option(False, help="the comparison as JSON, in place of the table")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input."""
    given = parse(_parser(), arguments, Request)
    from study.comparison import comparable, compare
    from study.reporting import comparison_page
    from study.reporting.terminal import standard_console

    _check_out(given.out)
    found = compare.compare(comparable.read(given.storage, given.studies))
    if given.out is not None:
        with faults.raised_as_bad_input(given.out):
            written = comparison_page.write(given.out, found)
    if given.json:
        print(comparison_page.as_json(found))
        return 0
    comparison_page.show(standard_console(), found)
    print(f"\nreport  {written[0]}" if given.out else "\n--out DIR writes a report and tables")
    return 0


def _check_out(out: Path | None) -> None:
    """Check that ``--out`` can be a folder that is written to.

    Raises:
        BadInput: it cannot.
    """
    if out is None:
        return
    there = nearest(out)
    if not there.is_dir():
        raise BadInput(f"cannot write to --out {out}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BadInput(f"cannot write to --out {out}: {there} is not yours to write")


def _parser() -> Parser:
    return Parser(
        prog="python -m study.compare",
        description="Compare finished studies that were tested on the same questions.",
    )


if __name__ == "__main__":
    sys.exit(main())
