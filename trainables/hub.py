"""``hub:org/name``: a model or dataset of Hugging Face's hub, as a folder of this machine.

Only what is named like this is looked for there: a misspelt folder never becomes a download, and
nothing is fetched that nobody asked for. ``hub:org/name@revision`` is one version of it. Files come
into the cache that all of Hugging Face's libraries share; what is there is found without a network.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Literal

from trainables import caches
from trainables.errors import BadInput

PREFIX = "hub:"


@cache
def folder(given: str, kind: Literal["model", "dataset"]) -> Path:
    """The folder that ``given`` names: itself, or where the hub's files are after this.

    Archives of a dataset are unpacked: where its authors publish a folder of images, the hub mostly
    has ``images.zip``.

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
    # The hub's errors have no base in common: they are of half a dozen kinds, some plain Exception.
    except Exception as error:
        raise BadInput(
            f"{given} can't be had from the hub ({' '.join(str(error).split())[:200]}); see that "
            f"the {kind} is called so, or download it where there is a network and give its folder"
        ) from error
    return _unpacked(found) if kind == "dataset" else found


def name_of(folder: Path) -> str:
    """What a model in ``folder`` is called: a folder of the hub's cache is named after a hash."""
    return (
        folder.parents[1].name.split("--")[-1] if folder.parent.name == "snapshots" else folder.name
    )


def _unpacked(snapshot: Path) -> Path:
    """A folder with all that is in ``snapshot`` and in its archives; itself if there are none."""
    archives = sorted(snapshot.glob("*.zip"))
    if not archives:
        return snapshot
    # A snapshot is named after its content; the folder above it after its dataset.
    name = f"{snapshot.parents[1].name}-{snapshot.name}"
    try:
        return caches.made(Path("unpacked", name), lambda into: _unpack(snapshot, archives, into))
    except zipfile.BadZipFile as error:
        raise BadInput(f"an archive in {snapshot} can't be unpacked ({error})") from error


def _unpack(snapshot: Path, archives: list[Path], into: Path) -> None:
    for archive in archives:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(into)  # paths that lead out of it are made to stay inside
    for entry in snapshot.iterdir():
        if entry not in archives and not (into / entry.name).exists():
            (into / entry.name).symlink_to(entry.resolve())
    shutil.rmtree(into / "__MACOSX", ignore_errors=True)
