"""Commands that were modules of ``trainables.models``; each says where it is now."""

from __future__ import annotations

import sys


def moved(name: str) -> None:
    """End the process with exit code 2 and a line that says where the command ``name`` is."""
    old, new = f"python -m trainables.models.{name}", f"python -m trainables.model_tools.{name}"
    print(f"error: {old} is {new} now.", file=sys.stderr)
    sys.exit(2)
