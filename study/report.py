"""``python -m study.report NAME [--storage DIR]``: write a study's report and tables anew.

The report, ``report.html``, shows what a study found on one page that needs no other file. The
tables lie beside it. Both are made from ``results.json``. The last line that is printed says
whether the study did what its ``protocol.json`` planned.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from study.analysis import results_file
from study.config.deployment import Storage
from study.protocol import kept
from study.reporting import page
from study.storage import faults
from study.storage.mirror import fetch_study
from trainables.command import command
from trainables.options import Parser, option, parse


@dataclass(frozen=True, kw_only=True)
class Request(Storage):
    """The study to report."""

    name: str = option(positional=True, metavar="NAME", help="name of the study")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input."""
    given = parse(_parser(), arguments, Request)
    study_folder = fetch_study(given.storage, given.name)
    results = results_file.read(study_folder)
    with faults.raised_as_bad_input(study_folder.local_storage):
        for path in page.write(study_folder.path, results):
            print(path)
        print(f"protocol  {kept.check(study_folder.path, results).text}")
    return 0


def _parser() -> Parser:
    return Parser(
        prog="python -m study.report",
        description="Write a study's report and tables anew from its results.json.",
    )


if __name__ == "__main__":
    sys.exit(main())
