"""Text of a trial's settings."""

from __future__ import annotations

from typing import Any

from study.trials.record import TrialRecord


def settings_text(record: TrialRecord) -> str:
    """The searched parameters of a trial, ``name=value`` separated by spaces."""
    return " ".join(f"{k}={short(v)}" for k, v in record.spec.parameters.items())


def short(value: Any) -> str:
    """A value as short text; floats with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
