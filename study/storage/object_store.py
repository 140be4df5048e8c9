"""Access to objects in an S3-compatible store, and this machine's copy of them.

Credentials and the store's address come as they do for every S3 client: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, or a role.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from study.storage.paths import atomic_write
from trainables.cache import folders as cache_folders
from trainables.errors import BadInput
from trainables.secrecy import shown

SCHEMES = ("s3://", "gs://")
PIECE_BYTES = 16 * 2**20
COPIES = "storage"
"""Folder, in a cache folder, of this machine's copies of stores."""


def is_store(storage: str | Path) -> bool:
    """Whether ``--storage`` names an object store and not a folder."""
    return str(storage).startswith(SCHEMES)


def check_storage_address(storage: str) -> None:
    """Check that ``--storage`` is a folder, or an address of an object store with a bucket.

    Raises:
        BadInput: it is an address of something else, or has no bucket.
    """
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", storage)
    bucket = storage.partition("://")[2].strip("/")
    if scheme and not (is_store(storage) and bucket):
        names = " or ".join(f"{scheme}BUCKET/NAME" for scheme in SCHEMES)
        raise BadInput(f"--storage {shown(storage)} must be a folder, or like {names}")


def local_copy(url: str) -> Path:
    """Folder of this machine's copy of a store, in the first cache folder that can be written.

    Raises:
        BadInput: no cache folder can be written.
    """
    name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]
    refused: OSError | None = None
    for folder in cache_folders.folders():
        copy = folder / COPIES / name
        try:
            copy.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            refused = error
            continue
        if os.access(copy, os.W_OK):
            return copy
    raise BadInput(f"no cache folder can be written for a copy of --storage {url}") from refused


class Version(NamedTuple):
    """What tells an object from an earlier one of the same name."""

    bytes: int
    changed: int
    """Time of its last change, in nanoseconds since 1970."""


@dataclass(frozen=True)
class ObjectStore:
    """Objects below a URL, by key (``optuna.journal``, ``answers/x.parquet``)."""

    url: str

    def check(self) -> None:
        """Check that an object can be written, read and removed.

        Raises:
            BadInput: one of the three fails.
        """
        key, content = f".check-{uuid.uuid4().hex}", uuid.uuid4().bytes
        try:
            self.write(key, content)
            whole = self.read(key) == content
            self.drop(key)
        except (OSError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise BadInput(f"cannot write to --storage {self.url}: {line}") from None
        if not whole:
            raise BadInput(f"--storage {self.url} gives back something else than was written")

    def part(self, name: str) -> ObjectStore:
        """The part of the store whose keys begin with ``name/``."""
        return ObjectStore(f"{self.url.rstrip('/')}/{name}")

    def listing(self, prefix: str = "") -> list[str]:
        """All keys below ``prefix``, or below the URL."""
        return list(self.versions(prefix))

    def versions(self, prefix: str = "") -> dict[str, Version]:
        """Key -> version of every object below ``prefix``, or below the URL."""
        from pyarrow import fs

        files, root = self._open()
        where = f"{root}/{prefix}".rstrip("/")
        found = files.get_file_info(fs.FileSelector(where, recursive=True, allow_not_found=True))
        files_only = (each for each in found if each.type is fs.FileType.File)
        return {
            each.path.removeprefix(f"{root}/"): Version(bytes=each.size, changed=each.mtime_ns or 0)
            for each in files_only
        }

    def read(self, key: str) -> bytes | None:
        """Content of an object; None if there is no such object."""
        files, root = self._open()
        try:
            with files.open_input_stream(f"{root}/{key}") as stream:
                content: bytes = stream.read()
                return content
        except FileNotFoundError:
            return None

    def write(self, key: str, content: bytes) -> None:
        """Write an object. Until it is written, readers get the old one."""
        files, root = self._open()
        with files.open_output_stream(f"{root}/{key}") as stream:
            stream.write(content)

    def put(self, file: Path, key: str) -> None:
        """Upload a file as an object."""
        with file.open("rb") as source:
            files, root = self._open()
            with files.open_output_stream(f"{root}/{key}") as stream:
                while piece := source.read(PIECE_BYTES):
                    stream.write(piece)

    def get(self, key: str, file: Path) -> None:
        """Download an object into a file, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        files, root = self._open()
        with (
            files.open_input_stream(f"{root}/{key}") as stream,
            atomic_write(file) as partial,
            partial.open("wb") as target,
        ):
            while piece := stream.read(PIECE_BYTES):
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())  # a machine that fails leaves no file that is cut short

    def drop(self, prefix: str) -> None:
        """Remove an object and all objects below its name."""
        files, root = self._open()
        for key in {*self.listing(prefix), *([prefix] if self.read(prefix) is not None else [])}:
            files.delete_file(f"{root}/{key}")

    def drop_all(self) -> None:
        """Remove all objects below the URL, many with one request."""
        files, root = self._open()
        # Object by object, an empty one would be made that stands for the folder.
        with suppress(FileNotFoundError):
            files.delete_dir(root)

    def _open(self) -> tuple[Any, str]:
        files, root = _connection(self.url)
        return files, root


_connections: dict[tuple[int, str, str], tuple[Any, str]] = {}


def _connection(url: str) -> tuple[Any, str]:
    """File system and path of a URL. A file system is opened once per server, bucket and process:
    that takes longer than to read an object, and a connection does not survive a fork."""
    from pyarrow import fs

    scheme, _, rest = url.partition("://")
    bucket, _, path = rest.partition("/")
    whole = f"{scheme}://{bucket}"
    key = (os.getpid(), os.environ.get("AWS_ENDPOINT_URL", ""), whole)
    if key not in _connections:
        _connections[key] = fs.FileSystem.from_uri(whole)
    files, root = _connections[key]
    return files, f"{root.rstrip('/')}/{path}".rstrip("/")
