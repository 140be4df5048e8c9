"""Secrets cut out of texts that are kept, shown or sent.

A secret is a password in an address (``scheme://user:password@host``); a value in an address's
query whose name says that it is one (``?token=...``); and the value of an environment variable
whose name says so (``AWS_SECRET_ACCESS_KEY``, ``HF_TOKEN``).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn
from urllib.parse import quote, unquote, urlsplit

CUT = "***"
"""Stands where a secret stood."""
LEAST_CHARACTERS = 8
"""Of a value that is cut wherever it stands: a shorter one may be a word of any text."""
VARIABLE = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|(^|_)PASS|_PWD|SECRET|TOKEN|KEY|CONNECTION_STRING)$",
    re.IGNORECASE,
)
"""Names of environment variables that hold secrets."""
IN_QUERY = (
    "password|passwd|passphrase|pass|pwd|secret|token|key|credentials?|signature|sig|odbc_connect"
)
"""Ends of the names of such values in an address."""


def _patterns(character: str, of_value: str) -> tuple[re.Pattern[str], ...]:
    """What precedes a secret, and the secret. ``character`` may stand in a password, ``of_value``
    in a value of a query."""
    return tuple(
        re.compile(pattern, re.IGNORECASE | re.DOTALL)
        for pattern in (
            # Digits and a slash are a port, and an @ after them is part of a path.
            rf"(?P<before>://[^\s:/]*:)(?!\d+/)(?P<secret>(?:(?!://){character})*)(?=@)",
            # A token instead of a user, and no user that has an @ in it.
            (
                r"(?P<before>\bhttps?://)(?P<secret>[^\s:/?#@]+)"
                r"(?=@[^\s:/?#@]*(?:[:/?#\s]|$)(?![^\s/]*@))"
            ),
            rf"(?P<before>[?&;][\w.%+-]*(?:{IN_QUERY})=)(?P<secret>{of_value}*)",
            # A word has no digit, sign or capital after its first letter; what is encoded has.
            (
                r"(?P<before>\b(?:basic|bearer) )(?-i:(?=\S[\w+/=.~-]*[A-Z\d+/=]))"
                r"(?P<secret>[\w+/=.~-]{16,})"
            ),
        )
    )


IN_TEXT = _patterns(r"\S", r"[^\s&;#'\"]")
NO_SCHEME = re.compile(
    r"^(?P<before>(?:[\w+.-]+:/{0,2}|/{0,2})[^:/@]*:)(?!/|\d+/)(?P<secret>.+)(?=@)", re.DOTALL
)
"""A password in an address whose scheme was forgotten or misspelt, as ``user:password@host``."""
ALONE = (*_patterns(".", "[^&]"), NO_SCHEME)
"""Patterns for a text that is one argument of a command: what it holds may have blanks."""


def without_secrets(text: str) -> str:
    """The text with ``***`` for each secret, those of this process's environment and command line
    included. An address keeps its user and its host.

    >>> without_secrets("postgresql://mlflow:1234@db/mlflow is not there")
    'postgresql://mlflow:***@db/mlflow is not there'
    """
    for secret in _known():
        text = text.replace(secret, CUT)
    return _cut(text, IN_TEXT)


def command_line(module: str, arguments: Sequence[str]) -> str:
    """The command that runs a module with arguments, as a shell takes it, without secrets."""
    shown = (without_secrets(_cut(argument, ALONE)) for argument in arguments)
    return shlex.join(["python", "-m", module, *shown])


def shown(address: str) -> str:
    """An address as a refusal quotes it: without secrets, also where it is none that can be read.

    >>> shown("user:my password@host:5000")
    'user:***@host:5000'
    """
    return without_secrets(_cut(address, ALONE))


def without_user(address: str) -> str:
    """An address without user and password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def format_traceback(error: BaseException) -> str:
    """An exception's traceback, as Python prints it, without secrets."""
    return without_secrets("".join(traceback.format_exception(error)))


class Parser(argparse.ArgumentParser):
    """Of a command line; what it refuses, it shows without secrets."""

    def error(self, message: str) -> NoReturn:
        """Show the message and leave with exit code 2."""
        super().error(without_secrets(message))


def guard() -> None:
    """Have a command show no secrets: not in the traceback of what nobody caught, and not in its
    own command line, which others read by ``ps`` and Ray keeps."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(format_traceback(error))

    def show_of_thread(raised: threading.ExceptHookArgs) -> None:
        if raised.exc_value is not None and not isinstance(raised.exc_value, SystemExit):
            sys.stderr.write(format_traceback(raised.exc_value))

    sys.excepthook, threading.excepthook = show, show_of_thread
    with suppress(OSError):  # only Linux has it as a part of the process's memory
        _hide_arguments()


def _hide_arguments() -> None:
    """Write over the secrets of this process's command line, where Linux reads it from."""
    line = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    hidden = [os.fsencode(_cut(os.fsdecode(word), ALONE, as_long=True)) for word in line]
    if hidden == line:
        return
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    begins = int(fields[45])  # arg_start; see proc_pid_stat(5)
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(begins)
        memory.write(b"\0".join(hidden))


def _cut(text: str, patterns: Sequence[re.Pattern[str]], *, as_long: bool = False) -> str:
    """``as_long``: what stands there instead takes as many bytes."""

    def instead(found: re.Match[str]) -> str:
        stars = "*" * len(os.fsencode(found["secret"])) if as_long else CUT
        return found["before"] + stars

    for pattern in patterns:
        text = pattern.sub(instead, text)
    return text


def _known() -> list[str]:
    """The secrets of the environment and of the command line in all forms, the longest first."""
    forms = {form for s in _given() for form in (s, s.strip(), unquote(s), quote(s, safe=""))}
    return sorted((f for f in forms if len(f) >= LEAST_CHARACTERS), key=len, reverse=True)


def _given() -> Iterator[str]:
    for name, value in os.environ.items():
        if VARIABLE.search(name):
            yield value
        elif "://" in value:
            yield from _found(value, IN_TEXT)
    for argument in sys.argv:
        yield from _found(argument, ALONE)


def _found(text: str, patterns: Sequence[re.Pattern[str]]) -> Iterator[str]:
    for pattern in patterns:
        yield from (found["secret"] for found in pattern.finditer(text))
