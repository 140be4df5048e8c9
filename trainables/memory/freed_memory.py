"""Returns memory of a CPU that a process has freed to the system. It needs no PyTorch, so that
processes that compute nothing have it too."""

from __future__ import annotations

import contextlib
import ctypes


def return_freed() -> None:
    """Return memory of a CPU that was freed to the system, so that it does not count as memory of
    what comes next. It takes milliseconds."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
