"""``python -m study.audit --data NAME --data-root DIR``: find what is wrong with a dataset.

Exit code 0: nothing that would stop a study; 2: something that would, or bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from trainables.command import command
from trainables.data.common.splits import SPLITS
from trainables.workload import WorkloadConfig


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = _parser().parse_args(arguments)
    config = WorkloadConfig(data=given.data, data_root=given.data_root, split=given.split)
    config.check()
    dataset = config.dataset()
    from trainables.audit import audit

    found = audit.examine(dataset, progress=_show if sys.stderr.isatty() else None)
    print(json.dumps(asdict(found), indent=2) if given.json else "\n".join(found.lines()))
    return 2 if found.stops else 0


def _show(done: int, total: int) -> None:
    print(f"\rreading images {done:,}/{total:,}", end="" if done < total else "\n", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study.audit",
        description="Look for leaks, duplicates and unanswerable questions in a dataset.",
    )
    parser.add_argument(
        "--data", default="phantom", metavar="NAME[,NAME]", help="datasets [%(default)s]"
    )
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder of the dataset, or with a folder for each; or hub:ORG/NAME",
    )
    parser.add_argument(
        "--split", default="official", metavar="|".join(SPLITS), help="[%(default)s]"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
