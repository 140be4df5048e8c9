"""``python -m study.doctor``: check what a study needs, and say how to mend what is missing.

It takes the options that the study will get: ``--address``, ``--storage``, ``--tracking-uri``.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.config.deployment import Deployment, Places
from study.health.checks import CheckResult, examine
from study.tracking.mlflow_store import named_store
from trainables.command import command
from trainables.options import Parser, parse, same_option
from trainables.secrecy import without_secrets

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Request(Places):
    """Options that the study will get."""

    address: str | None = same_option(Deployment, "address")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 nothing stops a study, 1 something does, 2 bad input."""
    given = parse(_parser(), arguments, Request)
    from study.reporting.terminal import standard_console

    console = standard_console()
    began, problems, warnings = time.monotonic(), 0, 0
    for result in examine(given.address, given.storage, named_store(given.tracking_uri)):
        _show(console, result)
        problems += result.mark == "problem"
        warnings += result.mark == "warning"
    said = "nothing stops a study" if not problems else f"{problems} to mend before a study"
    more = f", {warnings} to know of" if warnings else ""
    console.print(f"\n{said}{more} ({time.monotonic() - began:.0f} seconds)")
    return 1 if problems else 0


def _show(console: Console, result: CheckResult) -> None:
    from rich.text import Text

    colour = {"ok": "green", "warning": "yellow", "problem": "red"}[result.mark]
    said = f" {result.what}: {without_secrets(result.observation)}"
    console.print(Text.assemble((f"{result.mark:8}", colour), said), soft_wrap=True)
    if result.advice:
        console.print(f"{'':8} -> {result.advice}", soft_wrap=True)


def _parser() -> Parser:
    return Parser(
        prog="python -m study.doctor",
        description="See whether all is there that a study needs, with the options it will get.",
    )


if __name__ == "__main__":
    sys.exit(main())
