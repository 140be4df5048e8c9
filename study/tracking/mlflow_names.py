"""Names as MLflow takes them: arms and datasets may have names that it refuses in its own."""

from __future__ import annotations

import hashlib
import posixpath
import re

LONGEST_KEY = 250
"""Letters of the name of a metric, a parameter or a tag."""
LONGEST_DATASET = 500
"""Letters of the name of a dataset."""
HASH = 8
"""Letters of a hash that keeps names apart which differ in refused characters alone."""
TAKEN = re.compile(r"[/\w.\- :]+")


def key(name: str) -> str:
    """The name of a metric, a parameter or a tag; where MLflow would refuse it, with ``_`` for what
    it does not take and with a hash."""
    is_path = posixpath.normpath(name) == name and not name.startswith((".", "/"))
    if TAKEN.fullmatch(name) and is_path and len(name) <= LONGEST_KEY:
        return name
    mark = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:HASH]
    changed = re.sub(r"[^\w.\- :]|(?<=\.)\.|^\.", "_", name)
    return f"{changed[: LONGEST_KEY - HASH - 1]}_{mark}"
