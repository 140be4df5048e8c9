"""Where the host waits for a simulated device."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.simulated_cuda.install import LISTENER

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def noted() -> Iterator[Counter[tuple[str, str]]]:
    """Count the waits inside the block by place, the innermost function of the project, and by
    what makes the host wait."""
    found: Counter[tuple[str, str]] = Counter()

    @LISTENER
    def note(why: bytes) -> int:
        found[_place(), why.decode()] += 1
        return 0  # it is allowed here

    library: Any = torch._C._simulated_cuda  # type: ignore[attr-defined]  # install adds it
    library.listen(note)
    try:
        yield found
    finally:
        library.listen(LISTENER())


def _place() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(REPOSITORY / "trainables"):
            return f"{path.relative_to(REPOSITORY)}: {frame.f_code.co_qualname}"
        frame = frame.f_back
    return "the backward pass"  # whose threads are PyTorch's own
