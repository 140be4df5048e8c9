"""Text of a trial's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def settings_text(parameters: Mapping[str, Any], *, exact: bool = False) -> str:
    """Settings of a trial, ``name=value`` separated by spaces.

    Floats have three significant digits, or all of them if ``exact``; then texts are quoted.
    """
    write = repr if exact else short
    return " ".join(f"{name}={write(value)}" for name, value in parameters.items())


def short(value: Any) -> str:
    """A value as short text; floats with three significant digits, several values with commas."""
    if isinstance(value, list | tuple):
        return ",".join(map(short, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
