"""Resolves ``hub:org/name``, a model or dataset of the Hugging Face hub, to a local folder.

Only names with this prefix are looked up there: a misspelt folder never becomes a download, and
nothing is fetched that nobody asked for. ``hub:org/name@revision`` is one version. Files are stored
in the cache that all Hugging Face libraries share; files that are in it are found without a
network.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Literal

from trainables.cache import folders as cache_folders
from trainables.errors import BadInput

PREFIX = "hub:"


@cache
def local_folder(given: str, kind: Literal["model", "dataset"]) -> Path:
    """Local folder for ``given``: the folder itself, or the downloaded files of ``hub:NAME``.

    Archives of a dataset are unpacked: instead of a folder of images, the hub mostly has
    ``images.zip``.

    Raises:
        BadInput: the hub has nothing of that name, or can't be reached.
    """
    if not given.startswith(PREFIX):
        return Path(given)
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():  # a log would get a line for each step of a bar
        disable_progress_bars()
    name, _, revision = given.removeprefix(PREFIX).partition("@")
    try:
        found = Path(snapshot_download(name, repo_type=kind, revision=revision or None))
    except Exception as error:  # half a dozen types without a base class of their own
        raise BadInput(
            f"{given} can't be had from the hub ({' '.join(str(error).split())[:200]}); see that "
            f"the {kind} is called so, or download it where there is a network and give its folder"
        ) from error
    return _unpacked(found) if kind == "dataset" else found


def name_of(folder: Path) -> str:
    """Name of the model in ``folder``: the folder's name or, in the hub's cache, where folders are
    named by hashes, the repository's name. A preset, which is a file, is
    called as the file."""
    if folder.is_file():
        return folder.stem
    return (
        folder.parents[1].name.split("--")[-1] if folder.parent.name == "snapshots" else folder.name
    )


def _unpacked(snapshot: Path) -> Path:
    """Folder with all files of ``snapshot`` and its archives; ``snapshot`` if it has no
    archives."""
    archives = sorted(snapshot.glob("*.zip"))
    if not archives:
        return snapshot
    # A snapshot is named after its content, the folder two levels above it after its dataset.
    name = f"{snapshot.parents[1].name}-{snapshot.name}"
    try:
        return cache_folders.cached_folder(
            Path("unpacked", name), lambda into: _unpack(snapshot, archives, into)
        )
    except zipfile.BadZipFile as error:
        raise BadInput(f"an archive in {snapshot} can't be unpacked ({error})") from error


def _unpack(snapshot: Path, archives: list[Path], into: Path) -> None:
    for archive in archives:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(into)  # zipfile keeps paths that lead out of it inside
    for entry in snapshot.iterdir():
        if entry not in archives and not (into / entry.name).exists():
            (into / entry.name).symlink_to(entry.resolve())
    shutil.rmtree(into / "__MACOSX", ignore_errors=True)
