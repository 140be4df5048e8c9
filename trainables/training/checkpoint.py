"""Writes and reads checkpoints of a trial. The disk holds the last one, whole or not at all.

The ranks of a trial may be on machines that do not share the folder. Then each machine has a folder
of that path with the files that its own ranks wrote, and only all these files together are the
checkpoint; ``study.storage.mirror`` brings them together.

A machine or a disk that fails may leave files that are cut short. So a checkpoint gets its name
only when all of its files are on the disk, and its ``manifest.json`` lists the files of all ranks
with sizes and CRC-32: ``{"files": {"report.json": [17, "0a1b2c3d"], ...}}``. A checkpoint whose
files are not as listed is ignored. Checkpoints of earlier versions have no manifest: they are used
if they can be read.
"""

from __future__ import annotations

import json
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

from trainables.cache import regular_file
from trainables.cache.on_disk import sync
from trainables.engine import ranks
from trainables.engine.base import Engine
from trainables.errors import BadInput

WEIGHTS, REPORT, ENGINE = "trained.safetensors", "report.json", "engine.txt"
MANIFEST = "manifest.json"
PIECE_BYTES = 2**20
"""Bytes of a file that are read at once."""
SYNCS = 8
"""Number of files that are synced to the disk at once."""


def write(folder: Path, seen: int, running: Engine, kind: str, report: Mapping[str, Any]) -> bool:
    """Write a checkpoint into ``folder``; once it is on the disk, remove the checkpoints before it.

    All ranks call this together.

    Args:
        folder: the trial's own folder. A whole checkpoint of the same point is left as it is.
        seen: number of examples seen so far, which names the checkpoint.
        running: engine whose trained weights and optimizer's state are written.
        kind: kind of the engine and number of its ranks; see ``last``.
        report: values that the trial reports at this point.

    Returns:
        Whether this rank is responsible for the folder; of the ranks that share it, one is.

    Raises:
        OSError: the disk can't take the checkpoint. Checkpoints before it stay.
    """
    target = folder / f"{seen:012d}"
    if ranks.broadcast(target.is_dir()) and _usable(target, kind, running):
        return ranks.current().first
    partial = folder / f"partial-{target.name}-{ranks.broadcast(uuid.uuid4().hex)}"
    try:
        partial.mkdir(parents=True)
        responsible = True
    except FileExistsError:  # made by another rank that shares the folder
        responsible = False
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
    files = {name: digest for some in ranks.all_gather(mine) for name, digest in some.items()}
    if responsible:
        (partial / MANIFEST).write_text(json.dumps({"files": files}), encoding="utf-8")
        inside = (path for path in partial.rglob("*") if path.is_dir())
        share = [*share, partial / MANIFEST, *inside, partial]
    _sync(share)
    ranks.barrier()
    if responsible:
        _finish(partial, target, files)
    ranks.barrier()
    return responsible


def last(folder: Path, kind: str, running: Engine) -> tuple[Path | None, list[int]]:
    """Find the last whole checkpoint; all ranks find the same one.

    Returns:
        The checkpoint, or None if there is none of this ``kind``, as other kinds store their state
        in another form. And the numbers of examples seen of later checkpoints that are damaged.
    """
    names = [path.name for path in folder.glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    common = set.intersection(*map(set, ranks.all_gather(names)))
    broken: list[int] = []
    for name in sorted(common, reverse=True):
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
    """Trained weights of a checkpoint by name, for callers that do not train them further.

    Raises:
        BadInput: the file is cut short or damaged.
    """
    file = checkpoint / MANIFEST
    try:
        listed = _read_manifest(checkpoint)
        file = checkpoint / WEIGHTS
        regular_file.check(file)
        if listed is not None and _digest(file) != listed[WEIGHTS]:
            raise ValueError("it is not as it was written")
        return load_file(file)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        cause = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadInput(
            f"{file} is cut short or damaged ({cause}); give it back from a copy, or take another "
            "arm or study"
        ) from None


def complete(checkpoint: Path) -> bool:
    """Whether a checkpoint has all files of its manifest, in the listed sizes; no file is read.

    A checkpoint without a manifest counts as complete.
    """
    try:
        listed = _read_manifest(checkpoint)
        sizes = {name: size for name, (size, _) in (listed or {}).items()}
        return _sizes(checkpoint).items() >= sizes.items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _finish(partial: Path, target: Path, files: Mapping[str, list[Any]]) -> None:
    """Rename a checkpoint that is on the disk to ``target``, and remove all others.

    Raises:
        OSError: the disk gives back something else than was written.
    """
    mine = [name for name in files if (partial / name).is_file()]
    shutil.rmtree(target, ignore_errors=True)  # a checkpoint of this point that is not whole
    partial.rename(target)
    _sync([target.parent])
    sizes = _sizes(target)
    if _read_manifest(target) != files or any(sizes.get(n) != files[n][0] for n in mine):
        raise OSError(f"{target} is not there as it was written")
    for older in target.parent.iterdir():
        if older.name != target.name:
            shutil.rmtree(older)


def _usable(checkpoint: Path, kind: str, running: Engine) -> bool | None:
    """Whether all ranks can continue from a checkpoint: it is whole and of this kind. The result is
    None if it is not whole. All ranks call this together."""
    try:
        whole = _whole(checkpoint, _share(checkpoint), kind, running)
    except Exception:  # readers raise errors of any type for files that are cut short
        whole = False
    if not all(ranks.all_gather(whole)):
        return None
    return ranks.broadcast((checkpoint / ENGINE).read_text(encoding="utf-8")) == kind


def _whole(checkpoint: Path, share: list[Path], kind: str, running: Engine) -> bool:
    """Whether a checkpoint is whole by its sizes and by the content of this rank's share."""
    listed = _read_manifest(checkpoint)
    if listed is None:
        if (checkpoint / ENGINE).read_text(encoding="utf-8") == kind:
            load_file(checkpoint / WEIGHTS)
            json.loads((checkpoint / REPORT).read_text(encoding="utf-8"))
            running.check_saved(checkpoint)
        return True
    names = {file: file.relative_to(checkpoint).as_posix() for file in share}
    intact = (_digest(file) == listed[name] for file, name in names.items() if name in listed)
    return {WEIGHTS, REPORT, ENGINE} <= listed.keys() and complete(checkpoint) and all(intact)


def _share(folder: Path) -> list[Path]:
    """Files that this rank checks: ranks that see the same folder divide its files among them. All
    ranks call this together."""
    rank, identities = ranks.current().rank, ranks.all_gather(_identity(folder))
    sharing = [other for other, seen in enumerate(identities) if seen == identities[rank]]
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return files[sharing.index(rank) :: len(sharing)]


def _identity(folder: Path) -> tuple[str, int, int]:
    """Identity of a folder: host name, device and inode, the same for all processes that see it on
    this machine."""
    stat = folder.stat() if folder.is_dir() else None
    return (socket.gethostname(), stat.st_dev if stat else 0, stat.st_ino if stat else 0)


def _sync(paths: Iterable[Path]) -> None:
    """Wait until the contents of files, and the names in folders, are on the disk. All are synced
    at once, which takes little longer than one.

    Raises:
        OSError: the disk does not take something.
    """
    with ThreadPoolExecutor(SYNCS) as pool:
        list(pool.map(sync, paths))


def _read_manifest(checkpoint: Path) -> dict[str, list[Any]] | None:
    """Size and CRC-32 of each file of a checkpoint; None if an earlier version wrote it, without a
    manifest."""
    try:
        text = regular_file.content(checkpoint / MANIFEST)
    except FileNotFoundError:
        return None
    files: dict[str, list[Any]] = json.loads(text)["files"]
    return files


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Bytes of each file of a checkpoint, the manifest left out."""
    files = (file for file in checkpoint.rglob("*") if file.is_file() and file.name != MANIFEST)
    return {file.relative_to(checkpoint).as_posix(): file.stat().st_size for file in files}


def _digest(file: Path) -> list[Any]:
    """Size and CRC-32 of a file. CRC-32 detects damage, and no digest is faster."""
    size, crc = 0, 0
    piece = memoryview(bytearray(PIECE_BYTES))
    with file.open("rb", buffering=0) as opened:
        while count := opened.readinto(piece):
            size, crc = size + count, zlib.crc32(piece[:count], crc)
    return [size, f"{crc:08x}"]
