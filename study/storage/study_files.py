"""The studies of a storage folder or an object store, to look at where they are: nothing is
downloaded but the files that are asked for, and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from study.storage import lease
from study.storage.lease import LEASE
from study.storage.object_store import ObjectStore, Version, is_store
from study.storage.paths import STUDY_NAME, TAKEN, is_partial, real_path
from study.storage.study_folder import LOCK, SETTINGS, WRITTEN, StudyFolder, unknown_study
from trainables.cache import regular_file
from trainables.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class StudyFiles:
    """The files of one study."""

    study_folder: StudyFolder
    versions: Mapping[str, Version]
    """Name of a file, with ``/`` between folders, -> its bytes and the time of its last change."""

    contents: Mapping[str, bytes] = field(default_factory=dict)
    """Name of a file that was read already -> its content."""

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study_folder.name

    @property
    def where(self) -> str:
        """Folder or URL of the study."""
        folder = self.study_folder
        return folder.store.url if folder.in_store else str(real_path(folder.path))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(version.bytes for version in self.versions.values())

    @property
    def half_made(self) -> bool:
        """Whether the study was killed before it was begun, or while it was deleted."""
        return SETTINGS not in self.versions

    @property
    def foreign(self) -> list[str]:
        """Names of files and folders in the study's folder that no study writes."""
        tops = {path.partition("/")[0] for path in self.versions}
        return sorted(top for top in tops if top not in WRITTEN and not _is_temporary(top))

    def read(self, name: str) -> bytes | None:
        """Content of a file; None if there is none.

        Raises:
            BadInput: it cannot be read.
        """
        if name in self.contents:
            return self.contents[name]
        try:
            if self.study_folder.in_store:
                return self.study_folder.store.read(name) if name in self.versions else None
            return regular_file.content(self.study_folder.path / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            line = (error.strerror or str(error)).strip().splitlines()[0]
            raise BadInput(f"cannot read {self.where}/{name}: {line}") from None

    def is_link(self, name: str) -> bool:
        """Whether a file of the study, or what lies in place of a folder, is a symbolic link."""
        return not self.study_folder.in_store and (self.study_folder.path / name).is_symlink()

    def with_contents(self, names: Iterable[str]) -> StudyFiles:
        """Copy of this study's files that holds the content of ``names``, of those that there are.

        Raises:
            BadInput: one cannot be read.
        """
        contents = {name: self.read(name) for name in names}
        found = {name: content for name, content in contents.items() if content is not None}
        return replace(self, contents={**self.contents, **found})

    def driver(self) -> str | None:
        """Name of the driver that runs the study, as far as can be seen from here: its machine, a
        blank, and a number that no other driver has. Empty if it is known only that one runs it,
        None if none does."""
        if not self.study_folder.in_store and (driver := self.study_folder.driver) is not None:
            return driver
        held = self.read(LEASE)
        return lease.driver(held) if held is not None and lease.beats(held) else None


def every(storage: str) -> list[StudyFiles]:
    """All studies in what ``--storage`` names, by name.

    Raises:
        BadInput: there is no such folder, or the store cannot be read.
    """
    found = _in_store(storage) if is_store(storage) else _in_folder(Path(storage))
    return [
        StudyFiles(study_folder=StudyFolder(storage=storage, name=name), versions=versions)
        for name, versions in sorted(found.items())
        if _is_study(name, versions)
    ]


def one(storage: str, name: str) -> StudyFiles:
    """The study ``name`` in what ``--storage`` names.

    Raises:
        BadInput: there is no such study, or the store cannot be read.
    """
    study_folder = StudyFolder(storage=storage, name=name)
    if study_folder.named and name.casefold() not in TAKEN:
        try:
            versions = study_folder.store.versions() if study_folder.in_store else None
        except (OSError, ValueError) as error:
            raise _unreadable(storage, error) from None
        if not study_folder.in_store and study_folder.path.is_dir():
            versions = _tree(study_folder.path)
        if versions and _is_study(name, versions):
            return StudyFiles(study_folder=study_folder, versions=versions)
    raise unknown_study(name, (files.name for files in every(storage)))


def _in_folder(storage: Path) -> dict[str, dict[str, Version]]:
    """Name of each folder in a storage folder -> name and version of its files."""
    if not storage.is_dir():
        raise BadInput(f"there is no folder {storage}; python -m study.launch makes one")
    return {
        entry.name: _tree(Path(entry.path))
        for entry in os.scandir(storage)
        if os.path.isdir(entry)  # unlike its own method, it takes a link to itself for none
    }


def _in_store(storage: str) -> dict[str, dict[str, Version]]:
    """First part of the keys in a store -> rest of the keys, and version of the objects."""
    try:
        versions = ObjectStore(storage).versions()
    except (OSError, ValueError) as error:
        raise _unreadable(storage, error) from None
    found: dict[str, dict[str, Version]] = {}
    for key, version in versions.items():
        name, slash, rest = key.partition("/")
        if slash:
            found.setdefault(name, {})[rest] = version
    return found


def _unreadable(storage: str, error: Exception) -> BadInput:
    line = str(error).strip().splitlines()[0]
    return BadInput(f"cannot read --storage {storage}: {line}")


def _is_study(name: str, files: Collection[str]) -> bool:
    """Whether a folder is a study's: it has been begun, or has nothing that no study writes. An
    empty one may be anybody's."""
    if not files or not STUDY_NAME.fullmatch(name) or name.casefold() in TAKEN:
        return False
    tops = {path.partition("/")[0] for path in files}
    return SETTINGS in tops or all(top in WRITTEN or _is_temporary(top) for top in tops)


def _is_temporary(name: str) -> bool:
    """Whether a name is one of a file that is being written, or of a lock."""
    return name.startswith(".") and (is_partial(name) or name.endswith(LOCK))


def _tree(folder: Path) -> dict[str, Version]:
    """Name and version of all files below a folder; what vanishes meanwhile is left out."""
    return dict(_walk(str(folder), ""))


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, Version]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
            continue
        try:
            stat = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield f"{prefix}{entry.name}", Version(bytes=stat.st_size, changed=stat.st_mtime_ns)
