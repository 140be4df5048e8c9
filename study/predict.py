"""``python -m study.predict DIR --image FILE --question TEXT``: ask an exported model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trainables.command import command
from trainables.errors import BadInput
from trainables.export import tuned_json


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input."""
    given = _parser().parse_args(arguments)
    if not given.image.is_file():
        raise BadInput(f"--image {given.image} is not a file")
    tuned_json.read(given.model)  # before the imports below, which take seconds
    from trainables.export import tuned_model

    answers = tuned_model.load(given.model).answers(given.image, given.question)
    print("\n".join(answers))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study.predict",
        description="Answer questions about an image with an exported model. Not for clinical use.",
    )
    parser.add_argument("model", type=Path, metavar="DIR", help="folder that study.export wrote")
    parser.add_argument("--image", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--question", action="append", required=True, metavar="TEXT", help="may be given again"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
