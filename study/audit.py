"""``python -m study.audit --data NAME --data-root DIR``: find what is wrong with a dataset.

Exit code 0: nothing that would stop a study; 2: something that would, or bad input.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

from study.config.settings import Settings
from trainables.command import command
from trainables.options import Parser, option, parse, same_option
from trainables.workload import WorkloadConfig


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to examine, and how to show what was found."""

    data: str = same_option(Settings, "data")
    data_root: str | None = same_option(Settings, "data_root")
    split: str = same_option(Settings, "split")
    json: bool = option(False, help="for programs")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = parse(_parser(), arguments, Request)
    config = WorkloadConfig(data=given.data, data_root=given.data_root, split=given.split)
    config.check()
    dataset = config.dataset()
    from trainables.audit import audit

    found = audit.examine(dataset, progress=_show if sys.stderr.isatty() else None)
    print(json.dumps(asdict(found), indent=2) if given.json else "\n".join(found.lines()))
    return 2 if found.stops else 0


def _show(done: int, total: int) -> None:
    print(f"\rreading images {done:,}/{total:,}", end="" if done < total else "\n", file=sys.stderr)


def _parser() -> Parser:
    return Parser(
        prog="python -m study.audit",
        description="Look for leaks, duplicates and unanswerable questions in a dataset.",
    )


if __name__ == "__main__":
    sys.exit(main())
