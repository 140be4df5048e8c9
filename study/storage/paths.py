"""Text that becomes part of a path: names of studies and arms, ids of trials, keys of a store.

It is read from files that others may have written, and must not lead out of the folder it is for.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainables.errors import BadInput

STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""The whole name of a study."""
LONGEST_BYTES = 255
"""Of a name, on the file systems of Linux."""


def below(folder: Path, *names: str) -> Path:
    """The path below ``folder`` that goes through ``names``, each of one file or folder.

    Raises:
        BadInput: a name is none, as ``../x``.
    """
    for name in names:
        if not _plain(name):
            raise BadInput(
                f"{name!r} cannot name a file in {folder}: a name is neither '.' nor '..' and has "
                "no '/' or '\\'; no study wrote it, so give back the study's files as they were"
            )
    return folder.joinpath(*names)


def _plain(name: object) -> bool:
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name.isprintable()
        and not {"/", "\\"} & set(name)
        and len(name.encode()) <= LONGEST_BYTES
    )
