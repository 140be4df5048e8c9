"""Declares settings that were added to a method which studies have used already."""

from __future__ import annotations

from dataclasses import field
from typing import Any

YOUNGER = "younger"
"""Key of a field's metadata by which a setting is younger than its method."""


def younger(default: Any) -> Any:
    """Declare such a setting in a method's ``Config``. It is in a trial's id only off its default,
    so that ids do not change."""
    return field(default=default, metadata={YOUNGER: True})
