"""``python -m study.list``: show which studies there are, how far each is, and what it found.

Of a store, only small files are read: the results of studies that have ended, the settings and
the journal of others.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from study.config.deployment import Storage
from study.inventory.overview import overviews
from study.inventory.tables import plain_list, show_list
from study.reporting.terminal import standard_console
from trainables.command import command
from trainables.options import Parser, option, parse


@dataclass(frozen=True, kw_only=True)
class Request(Storage):
    """Where the studies are, and how to show them."""

    json: bool = option(False, help="a list of objects, one a study")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input."""
    given = parse(_parser(), arguments, Request)
    found = overviews(given.storage)
    if given.json:
        print(json.dumps(plain_list(found), indent=2))
    else:
        show_list(standard_console(), given.storage, found)
    return 0


def _parser() -> Parser:
    return Parser(
        prog="python -m study.list",
        description="Show which studies there are, how far each is, and what it found.",
    )


if __name__ == "__main__":
    sys.exit(main())
