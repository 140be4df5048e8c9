"""Cuts secrets out of texts that are kept, shown or sent.

Secrets are passwords in addresses (``scheme://user:password@host``), values in an address's query
whose names tell that they are secret (``?token=...``), and values of environment variables whose
names tell so (``AWS_SECRET_ACCESS_KEY``, ``HF_TOKEN``).
"""

from __future__ import annotations

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
from urllib.parse import quote, unquote, urlsplit

CUT = "***"
"""Text that replaces a secret."""
LEAST_CHARACTERS = 8
"""Minimum length of a secret value that is cut out wherever it occurs: a shorter one may be an
ordinary word."""
VARIABLE = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|(^|_)PASS|_PWD|SECRET|TOKEN|KEY|CONNECTION_STRING)$",
    re.IGNORECASE,
)
"""Names of environment variables that hold secrets."""
IN_QUERY = (
    # Words that end no other word, also where words are written as one: ``sslpassword``.
    r"[\w.%+-]*(?:password|passwd|passphrase|secret|token|credentials?|signature|odbc_connect"
    r"|(?:access|account|api|auth|private|secret|shared)key)"
    # Words that end others too count as whole words: ``sort_key``, ``accountKey``, no ``monkey``.
    r"|(?:[\w.%+-]*(?:[._+-]|%[\da-f]{2}|(?-i:(?<=[a-z\d])(?=[A-Z]))))?"
    r"(?:pass|pwd|key|sig|sas|auth|authorization|jwt)"
    # A code lets in by itself; others, as ``error_code``, are numbers.
    r"|(?:(?:access|auth|authorization|device)[_-]?)?code"
)
"""Names of secret values in an address's query."""
NOT_IN_QUERY = ("viewStateShareKey",)
"""Names of values in an address's query that end like a secret's and are none: MLflow's name of a
saved view."""


def _patterns(character: str, of_value: str, no_token: str) -> tuple[re.Pattern[str], ...]:
    """Patterns of a secret and of the text before it. ``character`` is the pattern of a password's
    characters, ``of_value`` that of the characters of a value in a query; what begins with
    ``no_token`` is no token."""
    return tuple(
        re.compile(pattern, re.IGNORECASE | re.DOTALL)
        for pattern in (
            # In the web digits and a slash are a port, and an @ after them is part of a path. In
            # the address of a database or store they are a password.
            (
                r"(?P<before>(?:\bhttps?://[^\s:/]*:(?!\d+/)|(?<!http)(?<!https)://[^\s:/]*:))"
                rf"(?P<secret>(?:(?!://){character})*)(?=@)"
            ),
            # A token instead of a user, and no user that has an @ in it.
            (
                rf"(?P<before>\bhttps?://)(?!{no_token})(?P<secret>[^\s:/@]+)"
                r"(?=@[^\s:/?#@]*(?:[:/?#\s]|$)(?![^\s/]*@))"
            ),
            rf"(?P<before>[?&;#](?P<name>[\w.%+-]+)=)(?P<secret>{of_value}*)",
            # A word has no digit, sign or capital after its first letter; what is encoded has.
            (
                r"(?P<before>\b(?:basic|bearer) )(?-i:(?=\S[\w+/=.~-]*[A-Z\d+/=]))"
                r"(?P<secret>[\w+/=.~-]{16,})"
            ),
        )
    )


IN_TEXT = _patterns(r"\S", r"[^\s&;#'\"]", no_token=r"[^\s/@]*\?[^\s/@]*=[^\s/@]+@")
NO_SCHEME = re.compile(
    r"^(?P<before>(?:[\w+.-]+:/{0,2}|[\w+.-]*//|/{0,2})[^:/@]*:)(?!/|\d+/)(?P<secret>.+)(?=@)",
    re.DOTALL,
)
"""Pattern of a password in an address whose scheme is missing or misspelt, as in
``user:password@host``."""
NO_HOST = re.compile(
    r"(?P<before>://[^\s:/@\[]*:)(?P<secret>(?!\d*(?:[/?#]|$))[^/@?#]+)(?=[/?#]|$)", re.DOTALL
)
"""Pattern of a password in an address without an @, which stands where a port would be."""
ALONE = (*_patterns(".", "[^&]", no_token="@"), NO_SCHEME, NO_HOST)
"""Patterns for a text that is one argument of a command, where a secret may have blanks."""


def without_secrets(text: str) -> str:
    """Replace each secret in a text by ``***``, including those in this process's environment and
    command line. An address keeps its user and its host.

    >>> without_secrets("postgresql://mlflow:1234@db/mlflow is not there")
    'postgresql://mlflow:***@db/mlflow is not there'
    """
    for secret in _known():
        text = text.replace(secret, CUT)
    return _cut(text, IN_TEXT)


def command_line(module: str, arguments: Sequence[str]) -> str:
    """Shell command that runs a module with arguments, without secrets."""
    shown = (without_secrets(_cut_argument(argument)) for argument in arguments)
    return shlex.join(["python", "-m", module, *shown])


def shown(address: str) -> str:
    """An address for an error message, without secrets. The address may be malformed.

    >>> shown("user:my password@host:5000")
    'user:***@host:5000'
    """
    return without_secrets(_cut(address, ALONE))


def without_user(address: str) -> str:
    """Remove user and password from an address."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def format_traceback(error: BaseException) -> str:
    """Traceback of an exception, as Python prints it, without secrets."""
    return without_secrets("".join(traceback.format_exception(error)))


def guard() -> None:
    """Keep secrets out of a command's tracebacks of uncaught exceptions, and out of its own command
    line, which others can read by ``ps`` and Ray stores."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(format_traceback(error))

    def show_of_thread(raised: threading.ExceptHookArgs) -> None:
        if raised.exc_value is not None and not isinstance(raised.exc_value, SystemExit):
            sys.stderr.write(format_traceback(raised.exc_value))

    sys.excepthook, threading.excepthook = show, show_of_thread
    with suppress(OSError):  # only Linux has it as a part of the process's memory
        _hide_arguments()


def _hide_arguments() -> None:
    """Overwrite the secrets of this process's command line in the memory that Linux shows."""
    line = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    hidden = [os.fsencode(_cut_argument(os.fsdecode(word), as_long=True)) for word in line]
    if hidden == line:
        return
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    begins = int(fields[45])  # arg_start; see proc_pid_stat(5)
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(begins)
        memory.write(b"\0".join(hidden))


def _cut_argument(argument: str, *, as_long: bool = False) -> str:
    """Cut secrets from one word of a command line, which may be an option with its value."""
    option, value = _option_and_value(argument)
    return option + _cut(value, ALONE, as_long=as_long)


def _option_and_value(argument: str) -> tuple[str, str]:
    """``--name=`` and what follows it, or an empty text and the whole word."""
    found = re.match(r"--[\w-]+=", argument)
    return ("", argument) if found is None else (found[0], argument[found.end() :])


def _is_secret(found: re.Match[str]) -> bool:
    """Whether a match of a pattern is of a secret: where it is a value of a query, by its name."""
    name = found.groupdict().get("name")
    return name not in NOT_IN_QUERY and (
        name is None or re.fullmatch(IN_QUERY, unquote(name), re.IGNORECASE) is not None
    )


def _cut(text: str, patterns: Sequence[re.Pattern[str]], *, as_long: bool = False) -> str:
    """Cut secrets by patterns. With ``as_long`` the replacement has as many bytes as the secret."""

    def instead(found: re.Match[str]) -> str:
        if not _is_secret(found):
            return found[0]
        stars = "*" * len(os.fsencode(found["secret"])) if as_long else CUT
        return found["before"] + stars

    for pattern in patterns:
        text = pattern.sub(instead, text)
    return text


def _known() -> list[str]:
    """Secrets of the environment and of the command line, plain and URL-encoded, longest first."""
    forms = {form for s in _given() for form in (s, s.strip(), unquote(s), quote(s, safe=""))}
    return sorted((f for f in forms if len(f) >= LEAST_CHARACTERS), key=len, reverse=True)


def _given() -> Iterator[str]:
    for name, value in os.environ.items():
        if VARIABLE.search(name):
            yield value
        elif "://" in value:
            yield from _found(value, IN_TEXT)
    for argument in sys.argv:
        yield from _found(_option_and_value(argument)[1], ALONE)


def _found(text: str, patterns: Sequence[re.Pattern[str]]) -> Iterator[str]:
    for pattern in patterns:
        yield from (found["secret"] for found in pattern.finditer(text) if _is_secret(found))
