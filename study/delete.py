"""``python -m study.delete NAME``: delete a study with all that it has in MLflow, for good.

It shows what goes and asks. Nothing of another study goes, and no cache that studies share.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from study.config.deployment import Places
from study.inventory.deletion import plan_deletion
from study.storage import study_files
from study.tracking.mlflow_store import named_store
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse


@dataclass(frozen=True, kw_only=True)
class Request(Places):
    """The study to delete."""

    name: str = option(positional=True, metavar="NAME", help="name of the study")
    without_mlflow: bool = option(False, help="leave its runs in MLflow")
    dry_run: bool = option(False, help="show what goes, and stop")
    yes: bool = option(False, help="do not ask")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 1 the user said no, 2 bad input."""
    given = parse(_parser(), arguments, Request)
    found = study_files.one(given.storage, given.name)
    if not (given.yes or given.dry_run or (sys.stdin and sys.stdin.isatty())):
        raise BadInput(
            f"nobody can be asked whether study {given.name!r} is to be deleted, so nothing was: "
            "give --yes, or --dry-run to see what goes"
        )
    deletion = plan_deletion(
        found,
        given.tracking_uri,
        named_store(given.tracking_uri),
        without_mlflow=given.without_mlflow,
    )
    print(f"study {given.name}: this goes for good", *deletion.lines(), sep="\n  ", flush=True)
    if given.dry_run:
        return 0
    if not given.yes and not _confirmed():
        print("nothing was deleted")
        return 1
    left = deletion.carry_out(print)
    print(f"study {given.name} is deleted")
    if left:
        print(left)
    return 0


def _confirmed() -> bool:
    try:
        return input("delete it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _parser() -> Parser:
    return Parser(
        prog="python -m study.delete",
        description="Delete a study: its folder, its part of an object store, and its runs, files "
        "and models in MLflow.",
    )


if __name__ == "__main__":
    sys.exit(main())
