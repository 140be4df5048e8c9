"""``python -m study.clean``: remove checkpoints, copies and caches that nothing needs.

All studies stay as they are: they go on, are reported and exported as before. What is in a cache is
made again when it is needed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from study.config.deployment import Storage
from study.inventory.cleaning import needless, remove
from study.storage import faults
from study.storage.study_folder import local_storage
from study.trials.text import size_text
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse


@dataclass(frozen=True, kw_only=True)
class Request(Storage):
    """Where to look, and what counts as not needed."""

    unused_days: float = option(
        30.0, help="days after which a file of a cache that nobody used is not needed"
    )
    dry_run: bool = option(False, help="show what goes, and stop")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input."""
    given = parse(_parser(), arguments, Request)
    if not given.unused_days >= 0:
        raise BadInput(f"--unused-days must be at least 0, got {given.unused_days:g}")
    found = needless(given.storage, given.unused_days, print)
    for each in found:
        print(f"{size_text(each.bytes):>10}  {each.what}: {each.where}")
    size = sum(each.bytes for each in found)
    if given.dry_run or not found:
        print(f"{size_text(size)} can be freed" if found else "nothing can be freed")
        return 0
    with faults.raised_as_bad_input(local_storage(given.storage)):
        print(f"{size_text(remove(found, print))} freed")
    return 0


def _parser() -> Parser:
    return Parser(
        prog="python -m study.clean",
        description="Remove checkpoints, copies of studies and caches that nothing needs.",
    )


if __name__ == "__main__":
    sys.exit(main())
