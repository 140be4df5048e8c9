"""Cache folders, for files that can be made again, such as decoded images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trainables.errors import BadInput

KINDS = ("images", "features", "unpacked")
"""Folders in a cache folder whose entries are made and removed one by one."""


def folders() -> list[Path]:
    """Cache folders of this user, in the order of preference; they need not exist.

    The first is the user's cache folder. The second is a temporary folder, for machines where the
    first can't be written, as in containers; it is left out if another user has made it, who could
    put anything there.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.cache"))
    temporary = Path(tempfile.gettempdir()) / f"medvlm-study-{os.getuid()}"
    with suppress(OSError):  # it is not there, or cannot be
        if temporary.lstat().st_uid != os.getuid():
            return [home / "medvlm-study"]
    return [home / "medvlm-study", temporary]


def cached_folder(name: Path, make: Callable[[Path], None]) -> Path:
    """Folder ``name`` of a cache folder; if it does not exist, ``make`` fills it. It appears under
    its name only when it is complete.

    Raises:
        BadInput: no cache folder can hold it.
    """
    targets = [folder / name for folder in folders()]
    for target in targets:
        if target.is_dir():
            with suppress(OSError):  # its use is noted, also where reading is not
                os.utime(target)
            return target
    refused = []
    for target in targets:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{target.name}-", dir=target.parent
            ) as beside:
                whole = Path(beside) / target.name
                whole.mkdir()
                make(whole)
                if not target.is_dir():  # another process may have been faster
                    whole.rename(target)
            return target
        except OSError as error:
            refused.append(f"{target.parent} ({error.strerror})")
    raise BadInput(
        f"{name.name} can't be unpacked into {' or '.join(refused)}; make room, or set "
        "XDG_CACHE_HOME to a folder that has some"
    )
