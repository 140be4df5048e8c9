"""Storage faults: a disk that is full or damaged, or an object store that is gone.

A trial that meets such a fault has not failed: it stays open. The study stops with one line, and
goes on when the storage is mended and the same command is given again.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from study.storage.paths import nearest
from study.trials.text import size_text
from trainables.errors import BadInput

STORE = -1
"""Number that stands for an object store which does not take or give files."""
KINDS = {
    errno.ENOSPC: "no room is left in {where}; make room",
    errno.EDQUOT: "the quota of {where} is used up; make room",
    errno.EFBIG: "a file in {where} is larger than files may be there; raise ulimit -f",
    errno.EROFS: "{where} cannot be written: read-only file system; make it writable",
    errno.EIO: "{where} cannot be read or written: input/output error; see to the disk",
    errno.ESTALE: "{where} cannot be read or written: stale file handle; mount it again",
    STORE: "{where}; see to the store",
}
"""Error number -> what is wrong with the disk or the store, and what to do."""
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
"""Words in the errors of libraries, which give no error number -> the error number. Many libraries
pass on the words of the operating system."""
LONGEST_QUOTE = 200
"""Largest number of letters of an object store's error that are quoted."""
LEAST_BYTES = 2**18
"""Free bytes that Ray needs for its session's folder before a trial runs. With fewer it waits in
vain for its own processes."""


class StorageFault(RuntimeError):
    """Storage fault, described in one line by ``describe_fault``."""


@contextmanager
def raised_as_bad_input(folder: Path, then: Callable[[], str] = str) -> Iterator[None]:
    """Turn a storage fault that is raised in the block into ``BadInput``, which commands print in
    one line.

    Args:
        folder: folder that is written to, if the error names no path.
        then: gives the advice for the time after the storage is mended; by default and if it is
            empty, to give the same command again.

    Raises:
        BadInput: the block met a storage fault.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # libraries wrap the system's errors in types of their own
        fault = describe_fault(error, folder)
        if not fault:
            raise
        raise BadInput(f"{fault}, and {then() or 'give the same command again'}") from None


def check(folder: Path) -> None:
    """Check that a folder's file system has the room that Ray needs to start.

    Raises:
        StorageFault: it has less.
    """
    if _free(folder) < LEAST_BYTES:
        where = f"{folder} ({_room(folder) or 'it cannot be read'})"
        raise StorageFault(KINDS[errno.ENOSPC].format(where=where))


def describe_fault(error: BaseException, folder: Path, *, checkpoint: int = 0) -> str:
    """Describe in one line what is wrong with the disk or the store and what to do; empty if the
    error is no storage fault.

    Args:
        error: the error; the errors that it came from (``__cause__``, ``__context__``) count too.
        folder: folder that was written to, if the error names no path.
        checkpoint: bytes that a checkpoint of the trial takes which met the error; 0 if unknown.
    """
    for cause in _chain(error):
        if isinstance(cause, StorageFault):
            return str(cause)
        number = _number(cause)
        if number is not None:
            return KINDS[number].format(where=_where(cause, number, folder, checkpoint))
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and the errors that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException) -> int | None:
    """Error number of a storage fault, a key of ``KINDS``; None if the error is none."""
    if isinstance(error, OSError) and error.errno in KINDS:
        return error.errno
    text = str(error).lower()
    return next((number for words, number in WORDS.items() if words in text), None)


def _where(error: BaseException, number: int, folder: Path, checkpoint: int) -> str:
    """Path that has the fault, with its free room and what would be needed."""
    if number == STORE:
        quote = " ".join(str(error).split())[:LONGEST_QUOTE]
        return f"the object store does not do what is asked of it ({quote})"
    path = folder
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        named = Path(os.fsdecode(error.filename))
        path = folder if named.is_relative_to(folder) else named
    elif number == errno.ENOSPC:
        path = min((folder, *_temporary()), key=_free)  # such errors mostly name no path
    if number not in (errno.ENOSPC, errno.EDQUOT):
        return str(path)
    details = [_room(path)]
    if checkpoint:
        details.append(f"a checkpoint of the trial takes about {size_text(checkpoint)}")
    return f"{path} ({', '.join(filter(None, details))})" if any(details) else str(path)


def _room(path: Path) -> str:
    """Free room of a path's file system in words; empty if it cannot be read."""
    with suppress(OSError):
        existing = nearest(path)
        usage, status = shutil.disk_usage(existing), os.statvfs(existing)
        if status.f_files and not status.f_favail and usage.free:
            return "it holds as many files as it can"
        return f"{size_text(usage.free)} of {size_text(usage.total)} are free"
    return ""


def _free(path: Path) -> int:
    """Free bytes of a path's file system; 0 if it cannot be read."""
    with suppress(OSError):
        return shutil.disk_usage(nearest(path)).free
    return 0


def _temporary() -> list[Path]:
    """The folder of temporary files, if it is known."""
    with suppress(OSError):
        return [Path(tempfile.gettempdir())]
    return [Path(os.environ.get("TMPDIR", "/tmp"))]  # it could not be written to
