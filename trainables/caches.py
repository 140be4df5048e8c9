"""Where that is kept which can be made again: drawn data, decoded images. Delete it as you like."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def folders() -> list[Path]:
    """Folders of this user to look and to write in, best first; they need not exist.

    The first is the user's cache folder, the second a temporary one for where that can't be
    written, as in containers.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.cache"))
    return [home / "medvlm-study", Path(tempfile.gettempdir()) / f"medvlm-study-{os.getuid()}"]
