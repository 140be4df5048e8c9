"""Faults of the place where a study runs and not of a trial: a full disk, storage that is gone.

A trial that meets one has not failed. It stays open, the study stops in one line, and goes on when
the place is as it should be.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainables.errors import BadInput

STORE = -1
"""In place of an error number: an object store does not take or give files."""
KINDS = {
    errno.ENOSPC: "no room is left in {where}; make room",
    errno.EDQUOT: "the quota of {where} is used up; make room",
    errno.EROFS: "{where} cannot be written: read-only file system; make it writable",
    errno.EIO: "{where} cannot be read or written: input/output error; see to the disk",
    errno.ESTALE: "{where} cannot be read or written: stale file handle; mount it again",
    STORE: "{where}; see to the store",
}
"""Error number -> what is wrong with a place, and what to do."""
WORDS = {
    **{os.strerror(number).lower(): number for number in KINDS if number > 0},
    "database or disk is full": errno.ENOSPC,  # sqlite
    "disk i/o error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
    "pytorchstreamwriter failed": errno.ENOSPC,  # torch.save has no error number
    "] . unexpected pos ": errno.ENOSPC,
    "no usable temporary directory found": errno.ENOSPC,  # tempfile tries to write into each
    "aws error": STORE,  # pyarrow's clients of object stores, when they have tried for a while
    "google::cloud::status": STORE,
}
"""What libraries say -> the error number that they do not give. Many pass on the system's words."""
SAID = 200
"""Letters of a store's error that are quoted."""


LEAST_BYTES = 2**18
"""That Ray writes into its session's folder before a trial runs. Without them it waits in vain for
its own processes."""


class PlaceFault(RuntimeError):
    """A fault of the place, in the words of ``of_place``."""


@contextmanager
def told(folder: Path, then: Callable[[], str] = str) -> Iterator[None]:
    """Raise a fault of the place as what a command prints in one line.

    Args:
        folder: see ``of_place``.
        then: says what goes on when the place is as it should be, once that is known; empty: the
            same command is given again.

    Raises:
        BadInput: a fault of the place was raised inside.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        said = of_place(error, folder)
        if not said:
            raise
        raise BadInput(f"{said}, and {then() or 'give the same command again'}") from None


def check(folder: Path) -> None:
    """See that there is some room.

    Raises:
        PlaceFault: there is next to none.
    """
    if _free(folder) < LEAST_BYTES:
        where = f"{folder} ({_room(folder) or 'it cannot be read'})"
        raise PlaceFault(KINDS[errno.ENOSPC].format(where=where))


def of_place(error: BaseException, folder: Path, *, checkpoint: int = 0) -> str:
    """Say in one line what is wrong with the place, and what to do; empty if it is not the place.

    Args:
        error: what was raised, with what it came from (``__cause__``, ``__context__``).
        folder: which was written to, if the error names no path.
        checkpoint: bytes that a checkpoint takes of the trial that met it.
    """
    for found in _chain(error):
        if isinstance(found, PlaceFault):
            return str(found)
        number = _number(found)
        if number is not None:
            return KINDS[number].format(where=_where(found, number, folder, checkpoint))
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno in KINDS:
        return error.errno
    said = str(error).lower()
    return next((number for words, number in WORDS.items() if words in said), None)


def _where(error: BaseException, number: int, folder: Path, checkpoint: int) -> str:
    if number == STORE:
        said = " ".join(str(error).split())[:SAID]
        return f"the object store does not do what is asked of it ({said})"
    path = folder
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        named = Path(os.fsdecode(error.filename))
        path = folder if named.is_relative_to(folder) else named
    elif number == errno.ENOSPC:
        path = min((folder, *_temporary()), key=_free)  # who is full names no path, mostly
    if number not in (errno.ENOSPC, errno.EDQUOT):
        return str(path)
    told = [_room(path)]
    if checkpoint:
        told.append(f"a checkpoint of the trial takes about {_size(checkpoint)}")
    return f"{path} ({', '.join(filter(None, told))})" if any(told) else str(path)


def _room(path: Path) -> str:
    """How much of the file system is free."""
    with suppress(OSError):
        there = _nearest(path)
        usage, status = shutil.disk_usage(there), os.statvfs(there)
        if status.f_files and not status.f_favail and usage.free:
            return "it holds as many files as it can"
        return f"{_size(usage.free)} of {_size(usage.total)} are free"
    return ""


def _free(path: Path) -> int:
    with suppress(OSError):
        return shutil.disk_usage(_nearest(path)).free
    return 0


def _nearest(path: Path) -> Path:
    """The path, or the folder above it that is there."""
    return next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))


def _temporary() -> list[Path]:
    """The folder of temporary files."""
    with suppress(OSError):
        return [Path(tempfile.gettempdir())]
    return [Path(os.environ.get("TMPDIR", "/tmp"))]  # it could not be written to


def _size(count: int) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if count >= 2**power:
            return f"{count / 2**power:,.1f} {unit}"
    return f"{count / 2**10:.0f} KiB"
