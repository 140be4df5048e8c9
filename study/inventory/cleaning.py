"""Finds and removes what nothing needs: checkpoints, copies of studies, and caches.

A checkpoint is needed if its trial may still go on, or if it was confirmed, since its model can be
exported. Nothing is touched of a study that a driver runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from study.inventory.overview import journal_of
from study.storage import study_files
from study.storage.lease import LEASE
from study.storage.object_store import COPIES
from study.storage.paths import is_partial, was_left
from study.storage.study_files import StudyFiles
from study.storage.study_folder import (
    ANSWERS,
    CHECKPOINTS,
    EXPORTS,
    JOURNAL,
    PARTIAL,
    RESULTS,
    StudyFolder,
)
from study.trials.spec import Kind
from trainables.cache.unused import Unused, unused
from trainables.errors import BadInput

NEEDLESS = {
    CHECKPOINTS: "checkpoint that no trial needs",
    EXPORTS: "model whose export did not finish",
}
"""Folder of a study -> what something in it is that nothing needs."""


@dataclass(frozen=True, kw_only=True)
class Needless:
    """Something that nothing needs."""

    what: str
    """What it is, in words."""
    where: str
    """Path or URL."""
    bytes: int
    remove: Callable[[], object]


def needless(storage: str, unused_days: float, say: Callable[[str], object]) -> list[Needless]:
    """Everything that nothing needs in the studies of ``--storage`` and in this user's caches.

    Args:
        storage: value of ``--storage``.
        unused_days: days after which a file of a cache that nobody used is not needed.
        say: shows the user a line, about studies that are left as they are.

    Raises:
        BadInput: the storage cannot be read.
    """
    found: list[Needless] = []
    for files in study_files.every(storage):
        try:
            found += _of_study(files)
        except (BadInput, OSError) as error:
            say(f"{files.name} is left as it is: {error}")
    return [*found, *map(_of_cache, unused(unused_days, keep=(COPIES,)))]


def remove(found: list[Needless], say: Callable[[str], object]) -> int:
    """Remove everything; return the bytes that are free now. ``say`` shows the user a line about
    each thing that cannot be removed."""
    freed = 0
    for each in found:
        try:
            each.remove()
        except (BadInput, OSError) as error:
            say(f"{each.where} is left as it is: {error}")
        else:
            freed += each.bytes
    return freed


def _of_study(files: StudyFiles) -> Iterator[Needless]:
    """What nothing needs of a study.

    Raises:
        BadInput: the study's journal cannot be read, or a driver on this machine has more of it
            than the store.
    """
    # A lease may be that of a driver whose clock is wrong, or whose store is slow.
    if files.driver() is not None or files.half_made or LEASE in files.versions:
        return
    if not files.study_folder.in_store and files.study_folder.path.is_symlink():
        raise BadInput(f"it is a link to {files.where}; name the folder that holds it as --storage")
    if files.study_folder.in_store and not _store_has_all(files):
        raise BadInput("this machine has more of it than the store; --resume writes it there")
    records = journal_of(files).records
    if not records:  # it has begun no trial, or its journal is lost
        return
    needed = {r.spec.id for r in records if r.outcome is None or r.spec.kind is Kind.CONFIRM}
    sizes: dict[str, int] = {}
    for name, version in files.versions.items():
        folder, _, rest = name.partition("/")
        trial, _, inside = rest.partition("/")
        if folder == CHECKPOINTS and trial and trial not in needed:
            sizes[f"{CHECKPOINTS}/{trial}"] = sizes.get(f"{CHECKPOINTS}/{trial}", 0) + version.bytes
        elif folder == CHECKPOINTS and inside.startswith(PARTIAL):
            part = f"{CHECKPOINTS}/{trial}/{inside.partition('/')[0]}"
            sizes[part] = sizes.get(part, 0) + version.bytes
        elif folder == EXPORTS and was_left(trial):
            part = f"{EXPORTS}/{trial}"
            sizes[part] = sizes.get(part, 0) + version.bytes
        elif is_partial(name.removeprefix(f"{ANSWERS}/")):
            sizes[name] = version.bytes
    for name, size in sizes.items():
        yield Needless(
            what=NEEDLESS.get(name.partition("/")[0], "file that was not finished"),
            where=f"{files.where}/{name}",
            bytes=size,
            remove=partial(_drop, files.study_folder, name),
        )
    if files.study_folder.in_store:
        yield from _copy(files)


def _copy(files: StudyFiles) -> Iterator[Needless]:
    """This machine's copy of a study in a store, if the study has ended and the store has all that
    the copy has."""
    folder = files.study_folder.path
    if (
        RESULTS not in files.versions
        or files.study_folder.driver is not None
        or not folder.is_dir()
    ):
        return
    if (folder / EXPORTS).exists():  # exported models are here alone
        return
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    yield Needless(
        what="copy of a study in a store",
        where=str(folder),
        bytes=size,
        remove=partial(shutil.rmtree, folder),
    )


def _store_has_all(files: StudyFiles) -> bool:
    """Whether a study's journal in the store has all that this machine's copy has."""
    journal = files.study_folder.path / JOURNAL
    here = journal.read_bytes() if journal.exists() else b""
    return (files.read(JOURNAL) or b"").startswith(here)


def _drop(study_folder: StudyFolder, name: str) -> None:
    """Remove a file or folder of a study, if no driver runs the study.

    Raises:
        BadInput: a driver has begun to run it.
    """
    if study_folder.in_store:
        if study_folder.store.read(LEASE) is not None:
            raise BadInput("a driver runs the study")
        study_folder.store.part(name).drop_all()
        return
    with study_folder.only_driver("it is left as it is"):
        path = study_folder.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _of_cache(found: Unused) -> Needless:
    left = "left by a process that was killed"
    return Needless(
        what=left if found.temporary else f"cache, not used for {found.days:.0f} days",
        where=str(found.path),
        bytes=found.bytes,
        remove=found.remove,
    )
