"""Writes and reads checkpoints of a trial. On disk is the last one, whole or not at all.

Ranks of one trial may be on machines that share the folder, or on some that do not. Then each
machine has a folder of that path with what its own ranks wrote, and only all of them together are
the checkpoint. Whoever keeps folders (``study.storage.mirror``) brings them together.

A machine that fails, or a disk, may leave files that are cut short. So a checkpoint gets its name
when all of its files are on the disk, and lists them in ``manifest.json``, of all ranks, with sizes
and CRC-32: ``{"files": {"report.json": [17, "0a1b2c3d"], ...}}``. One whose files are not as listed
counts as none. Checkpoints of earlier versions have no list: they count if they can be read.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import uuid
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables.engine import ranks
from trainables.engine.base import Engine
from trainables.errors import BadInput

WEIGHTS, REPORT, ENGINE = "trained.safetensors", "report.json", "engine.txt"
MANIFEST = "manifest.json"
PIECE_BYTES = 2**20
"""Of a file, read at once."""
SYNCS = 8
"""Files that a disk is asked for at once."""
NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}
"""What file systems say that cannot wait for their disk, some of them of folders only."""


def write(folder: Path, seen: int, running: Engine, kind: str, report: Mapping[str, Any]) -> bool:
    """Write a checkpoint into ``folder`` and remove those before, once it is on the disk; all ranks
    do it together.

    Args:
        folder: the trial's alone. What is there of this very point already, if it is whole, stays
            as it is.
        seen: examples seen so far; names the checkpoint.
        running: gives what is trained and writes its optimizer's state.
        kind: of the engine and the ranks whose state it is; see ``last``.
        report: what is said of this point.

    Returns:
        whether this rank answers for the folder: one of those that share it does.

    Raises:
        OSError: the disk does not take it. Checkpoints before it stay.
    """
    place = folder / f"{seen:012d}"
    if ranks.broadcast(place.is_dir()) and _usable(place, kind, running):
        return ranks.current().first
    partial = folder / f"partial-{place.name}-{ranks.broadcast(uuid.uuid4().hex)}"
    try:
        partial.mkdir(parents=True)
        answers = True
    except FileExistsError:  # made by another rank that shares the folder
        answers = False
    ranks.barrier()
    trained = running.trained_weights()
    running.save(partial)
    if ranks.current().first:
        save_file(trained, partial / WEIGHTS)
        (partial / REPORT).write_text(json.dumps(report), encoding="utf-8")
        (partial / ENGINE).write_text(kind, encoding="utf-8")
    ranks.barrier()
    share = _share(partial)
    mine = {file.relative_to(partial).as_posix(): _digest(file) for file in share}
    files = {name: found for some in ranks.all_gather(mine) for name, found in some.items()}
    if answers:
        (partial / MANIFEST).write_text(json.dumps({"files": files}), encoding="utf-8")
        inside = (path for path in partial.rglob("*") if path.is_dir())
        share = [*share, partial / MANIFEST, *inside, partial]
    _sync(share)
    ranks.barrier()
    if answers:
        _finish(partial, place, files)
    ranks.barrier()
    return answers


def last(folder: Path, kind: str, running: Engine) -> tuple[Path | None, list[int]]:
    """The last whole checkpoint; all ranks find the same.

    Returns:
        The checkpoint; None if there is none, or only of another ``kind``, which keeps its state
        otherwise. And of those after it that are not whole, the examples seen.
    """
    there = [path.name for path in folder.glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    everywhere = set.intersection(*map(set, ranks.all_gather(there)))
    broken: list[int] = []
    for name in sorted(everywhere, reverse=True):
        usable = _usable(folder / name, kind, running)
        if usable:
            return folder / name, broken
        if usable is None:
            broken.append(int(name))
    return None, broken


def read(checkpoint: Path, running: Engine) -> tuple[int, dict[str, Any]]:
    """Restore an engine from a checkpoint; returns the examples seen and the reported values."""
    running.restore(checkpoint, load_file(checkpoint / WEIGHTS))
    return int(checkpoint.name), json.loads((checkpoint / REPORT).read_text(encoding="utf-8"))


def weights(checkpoint: Path) -> dict[str, Tensor]:
    """What was trained, by name, for whoever trains no further.

    Raises:
        BadInput: the file is cut short or damaged.
    """
    file = checkpoint / MANIFEST
    try:
        listed = _listed(checkpoint)
        file = checkpoint / WEIGHTS
        if listed is not None and _digest(file) != listed[WEIGHTS]:
            raise ValueError("it is not as it was written")
        return load_file(file)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise BadInput(
            f"{file} is cut short or damaged ({said}); give it back from a copy, or take another "
            "arm or study"
        ) from None


def complete(checkpoint: Path) -> bool:
    """Whether all its files are there in the sizes that it lists, if it does: a look that reads
    none of them."""
    try:
        listed = _listed(checkpoint)
        sizes = {name: size for name, (size, _) in (listed or {}).items()}
        return _sizes(checkpoint).items() >= sizes.items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _finish(partial: Path, place: Path, files: Mapping[str, list[Any]]) -> None:
    """Give a checkpoint that is on the disk its name, and remove others.

    Raises:
        OSError: what is there then is something else.
    """
    mine = [name for name in files if (partial / name).is_file()]
    shutil.rmtree(place, ignore_errors=True)  # what is not whole
    partial.rename(place)
    _sync([place.parent])
    sizes = _sizes(place)
    if _listed(place) != files or any(sizes.get(name) != files[name][0] for name in mine):
        raise OSError(f"{place} is not there as it was written")
    for older in place.parent.iterdir():
        if older.name != place.name:
            shutil.rmtree(older)


def _usable(checkpoint: Path, kind: str, running: Engine) -> bool | None:
    """Whether all ranks can go on from it: it is whole and of this kind; None if it is not whole.
    All ranks call it."""
    try:
        whole = _whole(checkpoint, _share(checkpoint), kind, running)
    except Exception:  # whatever readers make of files that are cut short
        whole = False
    if not all(ranks.all_gather(whole)):
        return None
    return ranks.broadcast((checkpoint / ENGINE).read_text(encoding="utf-8")) == kind


def _whole(checkpoint: Path, share: list[Path], kind: str, running: Engine) -> bool:
    """Whether a checkpoint is whole, as far as this rank looks: at sizes, and into its share."""
    listed = _listed(checkpoint)
    if listed is None:
        if (checkpoint / ENGINE).read_text(encoding="utf-8") == kind:
            load_file(checkpoint / WEIGHTS)
            json.loads((checkpoint / REPORT).read_text(encoding="utf-8"))
            running.check_saved(checkpoint)
        return True
    names = {file: file.relative_to(checkpoint).as_posix() for file in share}
    looked = (_digest(file) == listed[name] for file, name in names.items() if name in listed)
    return {WEIGHTS, REPORT, ENGINE} <= listed.keys() and complete(checkpoint) and all(looked)


def _share(folder: Path) -> list[Path]:
    """The files that this rank looks at: ranks of a machine that see one folder divide them. All
    ranks call it."""
    rank, places = ranks.current().rank, ranks.all_gather(_identity(folder))
    beside = [other for other, place in enumerate(places) if place == places[rank]]
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return files[beside.index(rank) :: len(beside)]


def _identity(folder: Path) -> tuple[str, int, int]:
    """The same for all processes of this machine that see this very folder."""
    at = folder.stat() if folder.is_dir() else None
    return (socket.gethostname(), at.st_dev if at else 0, at.st_ino if at else 0)


def _sync(paths: Iterable[Path]) -> None:
    """Wait until the disk has what is in files, and the names that are in folders. It is asked for
    all at once, which takes it little longer than one.

    Raises:
        OSError: it does not take something.
    """
    with ThreadPoolExecutor(SYNCS) as pool:
        list(pool.map(_sync_one, paths))


def _sync_one(path: Path) -> None:
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(number)


def _listed(checkpoint: Path) -> dict[str, list[Any]] | None:
    """File -> size and CRC-32; None if it has no list, being of an earlier version."""
    try:
        text = (checkpoint / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    files: dict[str, list[Any]] = json.loads(text)["files"]
    return files


def _sizes(checkpoint: Path) -> dict[str, int]:
    """File -> bytes, of all but the list."""
    files = (file for file in checkpoint.rglob("*") if file.is_file() and file.name != MANIFEST)
    return {file.relative_to(checkpoint).as_posix(): file.stat().st_size for file in files}


def _digest(file: Path) -> list[Any]:
    """Bytes and CRC-32: it tells damage, and no digest is faster."""
    size, crc = 0, 0
    piece = memoryview(bytearray(PIECE_BYTES))
    with file.open("rb", buffering=0) as opened:
        while count := opened.readinto(piece):
            size, crc = size + count, zlib.crc32(piece[:count], crc)
    return [size, f"{crc:08x}"]
