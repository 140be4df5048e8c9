"""Entry of every command: what it shows has no secret, what its user did wrong is one line, and a
signal that asks it to end interrupts it in order."""

from __future__ import annotations

import _thread
import errno
import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, TypeAlias, cast

from trainables.devices import environment
from trainables.errors import BadInput
from trainables.secrecy import guard, without_secrets

SHOWN = 60
"""Letters that are shown of a name that is too long."""
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""Words of PyTorch's error when a tensor has no room in a machine's memory."""
UNUSABLE = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "ELOOP", "ENOTDIR", "EISDIR", "EROFS", "ENXIO")
}
"""Numbers of the errors of a path that is not what it was taken for, or another's."""
Main: TypeAlias = Callable[[list[str] | None], int]
ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Signals that ask a process to end: Ctrl-C, the request of Slurm or Kubernetes, and a terminal
that was closed."""
AGAIN_SECONDS = 0.01
"""Seconds until an interrupt that was ignored, or had to wait, is raised once more."""
IMPORTING = "<frozen importlib"
"""Beginning of the names of the files of Python's own code of ``import``."""
_received: list[int] = [signal.SIGINT]
"""Signals that interrupted this process's command, the last one last. Libraries on the way may turn
a ``KeyboardInterrupt`` into another, so it cannot carry them."""


class WithoutSecrets:
    """A stream of text that leaves secrets out, and is as the stream it writes to otherwise."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without its secrets; return the length that was asked for. A character that
        the stream's encoding does not have is written as Python writes it."""
        try:
            shown = without_secrets(text)
            try:
                self._stream.write(shown)
            except UnicodeEncodeError as error:
                name = error.encoding
                self._stream.write(shown.encode(name, "backslashreplace").decode(name))
        except OSError as error:
            self._lost(error)
        return len(text)

    def flush(self) -> None:
        """Write out what is buffered."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        """Let the rest of the output go nowhere, since it cannot be written. A command whose reader
        has ended is interrupted; where a disk is full, say, it goes on, and says so."""
        if isinstance(error, BrokenPipeError):
            _nobody_reads(self._stream)
            return
        _discard(self._stream)
        if sys.stderr is not self:
            print(f"the output cannot be written ({error.strerror})", file=sys.stderr)

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
    secrets. ``BadInput``, a path that is too long or that this user cannot use and a tensor that no
    machine has memory for become one line and exit code 2, an interrupt one line and 128 plus the
    number of its signal.
    """
    if main.__module__ == "__main__":  # and not where a test calls it
        _open_closed()
        guard()
        _take_signals()

    @functools.wraps(main)
    def run(arguments: list[str] | None = None) -> int:
        nowhere = Path(os.devnull).open("w")  # noqa: SIM115  # for a stream that the parent closed
        out, errors = (
            cast(IO[str], WithoutSecrets(s or nowhere)) for s in (sys.stdout, sys.stderr)
        )
        with nowhere, redirect_stdout(out), redirect_stderr(errors):
            try:
                code = _exit_code(main, arguments)
                out.flush()  # what reads the output may have ended
                return code
            except KeyboardInterrupt:
                return interrupted()

    return run


def _exit_code(main: Main, arguments: list[str] | None) -> int:
    """Exit code of ``main``; what its user did wrong is printed in one line."""
    try:
        environment.check()
        return main(arguments)
    except BadInput as error:
        said = str(error)
    except OSError as error:
        given = str(error.filename)
        if error.errno == errno.ENAMETOOLONG:
            said = f"a name is too long for a file: {given[:SHOWN]!r}..."
        elif error.errno in UNUSABLE and error.filename is not None:
            said = f"{given!r} cannot be used ({error.strerror}); give another, or mend it"
        else:
            raise
    except RuntimeError as error:
        if NO_MEMORY not in str(error):
            raise
        asked = re.search(r"allocate (\d+) bytes", str(error))
        much = f" (it asked for {int(asked[1]) / 2**30:,.0f} GiB at once)" if asked else ""
        said = f"this machine has too little memory for that{much}"
    print(f"error: {said}", file=sys.stderr)
    return 2


def interrupted(then: str = "") -> int:
    """Say that a command was interrupted, and what to do ``then``; return its exit code, as shells
    have it: 128 plus the number of the signal. Nothing is said if the reader of the command's
    output has ended, as ``head`` does."""
    if _received[-1] != signal.SIGPIPE:
        print(f"interrupted{then and f'; {then}'}", file=sys.stderr)
    return 128 + _received[-1]


def was_signalled() -> bool:
    """Whether a signal has asked this process's command to end. What goes on for long asks this at
    times: a library on the way may have caught the ``KeyboardInterrupt``."""
    return len(_received) > 1


def _take_signals() -> None:
    """Let the first signal that asks this process to end raise ``KeyboardInterrupt`` in its main
    thread, once more a moment later where Python ignores that: in the methods ``__del__`` and the
    functions that C code calls back. It waits while Python's own code of ``import`` runs, which
    would keep its lock for ever, so that no other thread could import or end. While the command
    puts away what it has, a second Ctrl-C ends it at once, and other signals are ignored. What the
    parent process ignores (``nohup``, a shell's ``&``) stays ignored."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in taken:
            # Python's handlers wait for its main thread, which may hang in a library.
            signal.signal(each, signal.SIG_DFL if each == signal.SIGINT else signal.SIG_IGN)
        if number == getattr(signal, "SIGHUP", None):
            for stream in (sys.stdout, sys.stderr):
                _discard(stream)
        _received.append(number)
        signal.signal(signal.SIGALRM, raise_or_wait)
        raise_or_wait(number, frame)

    def raise_or_wait(number: int, frame: FrameType | None) -> None:
        if frame is None or not frame.f_code.co_filename.startswith(IMPORTING):
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)

    def ignored(error: sys.UnraisableHookArgs) -> None:
        if was_signalled() and issubclass(error.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            shown(error)

    taken = [each for each in ENDING if signal.getsignal(each) != signal.SIG_IGN]
    for each in taken:
        signal.signal(each, end)
    shown, sys.unraisablehook = sys.unraisablehook, ignored


def _open_closed() -> None:
    """Open the standard streams that the parent closed, to nowhere: a file that is opened next
    would have their numbers, and what a library writes to a stream would be in it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def _nobody_reads(stream: IO[str]) -> None:
    """Interrupt the command: what reads its output has ended."""
    _discard(stream)
    if threading.current_thread() is threading.main_thread():
        _received.append(signal.SIGPIPE)
        raise KeyboardInterrupt
    _thread.interrupt_main(signal.SIGTERM)


def _discard(stream: IO[str]) -> None:
    """Let what is written to a stream from now on go nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
