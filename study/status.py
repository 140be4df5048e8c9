"""``python -m study.status NAME``: show how far a study is, while it runs or not."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

from rich.live import Live

from study.config.deployment import Storage
from study.inventory.overview import State
from study.inventory.status import status
from study.inventory.tables import plain_status, status_view
from study.reporting.terminal import standard_console
from study.storage import study_files
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse

REFRESH_SECONDS = 2.0
"""Seconds between two looks at a study that is followed."""


@dataclass(frozen=True, kw_only=True)
class Request(Storage):
    """The study to look at, and how to show it."""

    name: str = option(positional=True, metavar="NAME", help="name of the study")
    follow: bool = option(False, help="show it anew every two seconds, until it has ended")
    json: bool = option(False, help="an object, for programs")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input, 130 interrupted."""
    given = parse(_parser(), arguments, Request)
    if given.follow and given.json:
        raise BadInput("--follow and --json: give one")
    found = status(study_files.one(given.storage, given.name))
    if given.json:
        print(json.dumps(plain_status(found), indent=2))
        return 0
    console = standard_console()
    if not given.follow:
        console.print(status_view(found))
        return 0
    with Live(status_view(found), console=console, auto_refresh=False) as live:
        while found.overview.state is State.RUNNING:
            time.sleep(REFRESH_SECONDS)
            found = status(study_files.one(given.storage, given.name))
            live.update(status_view(found), refresh=True)
    return 0


def _parser() -> Parser:
    return Parser(
        prog="python -m study.status",
        description="Show a study's arms, trials, rungs and devices, and what time is left.",
    )


if __name__ == "__main__":
    sys.exit(main())
