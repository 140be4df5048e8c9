"""``python -m study.predict DIR --image FILE --question TEXT``: ask an exported model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from trainables.command import command
from trainables.data.common.multiple_choice import cleaned
from trainables.errors import BadInput, printable
from trainables.export import tuned_json
from trainables.options import Parser, option, parse


@dataclass(frozen=True, kw_only=True)
class Request:
    """An exported model, and what to ask it."""

    model: Path = option(positional=True, metavar="DIR", help="folder that study.export wrote")
    image: Path = option(required=True, metavar="FILE")
    question: list[str] = option(required=True, metavar="TEXT", help="may be given again")
    options: list[str] | None = option(
        None, flag="--option", metavar="TEXT", help="one of the options of each question"
    )


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input."""
    given = parse(_parser(), arguments, Request)
    if not given.image.is_file():
        raise BadInput(f"--image {given.image} is not a file")
    try:
        options = cleaned(given.options) if given.options else ()
    except ValueError as error:
        raise BadInput(f"--option: {error}") from None
    tuned_json.read(given.model)  # before the imports below, which take seconds
    from trainables.export import tuned_model
    from trainables.models.common.prompt import image_words

    tuned = tuned_model.load(given.model)
    answers = tuned.answers(given.image, given.question, options)
    asked = (*given.question, *options)
    if words := [word for word in image_words(tuned.model) if any(word in text for text in asked)]:
        told = f"{' and '.join(words)}: left out of what was asked, as in training"
        print(f"note: {printable(told)}, since the image is put in by itself", file=sys.stderr)
    for line in "\n".join(answers).split("\n"):
        print(printable(line))
    return 0


def _parser() -> Parser:
    return Parser(
        prog="python -m study.predict",
        description="Answer questions about an image with an exported model. Not for clinical use.",
    )


if __name__ == "__main__":
    sys.exit(main())
