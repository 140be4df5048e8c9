"""Text of a trial's settings, of sizes and of times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def settings_text(parameters: Mapping[str, Any], *, exact: bool = False) -> str:
    """Settings of a trial, ``name=value`` separated by spaces.

    Floats have three significant digits, or all of them if ``exact``; then texts are quoted.
    """
    write = repr if exact else short
    return " ".join(f"{name}={write(value)}" for name, value in parameters.items())


def short(value: Any) -> str:
    """A value as short text; floats with three significant digits, several values with commas, a
    text of several words in quotation marks, on one line."""
    if isinstance(value, list | tuple):
        return ",".join(map(short, value))
    if isinstance(value, str) and len(value.split()) > 1:
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def count_text(count: int, noun: str) -> str:
    """A number of things, as ``1 arm`` or ``2,000 trials``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def size_text(count: int) -> str:
    """A number of bytes in words."""
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if count >= 2**power:
            return f"{count / 2**power:,.1f} {unit}"
    return f"{count / 2**10:.0f} KiB"


def wait_text(seconds: float) -> str:
    """A time in words, as ``20 seconds`` or ``30 minutes``."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


def clock_text(seconds: float | None) -> str:
    """Seconds as ``h:mm:ss`` or ``m:ss``; ``?`` for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
