"""Entry of every command: what it shows has no secret, and what its user did wrong is one line."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import IO, Any, TypeAlias, cast

from trainables.errors import BadInput
from trainables.secrecy import guard, without_secrets

SHOWN = 60
"""Letters that are shown of a name that is too long."""
Main: TypeAlias = Callable[[list[str] | None], int]


class WithoutSecrets:
    """A stream of text that leaves secrets out, and is as the stream it writes to otherwise."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without its secrets; return the length that was asked for."""
        self._stream.write(without_secrets(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write texts one after another, each without its secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def command(main: Main) -> Callable[..., int]:
    """Make ``main`` the entry of a command. Each module that runs by ``python -m`` decorates its
    ``main`` with this.

    ``main`` takes the arguments of the command line (None: those of this process) and returns the
    exit code. What it prints, also of an argument that argparse refuses, is printed without
    secrets. ``BadInput`` and a name that is too long for a file become one line and exit
    code 2, an interrupt exit code 130.
    """
    if main.__module__ == "__main__":  # and not where a test calls it
        guard()

    @functools.wraps(main)
    def run(arguments: list[str] | None = None) -> int:
        out, errors = (cast(IO[str], WithoutSecrets(s)) for s in (sys.stdout, sys.stderr))
        with redirect_stdout(out), redirect_stderr(errors):
            try:
                return main(arguments)
            except BadInput as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                given = str(error.filename)[:SHOWN]
                print(f"error: a name is too long for a file: {given!r}...", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                return 130

    return run
