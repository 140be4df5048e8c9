"""A small disk that is really there: a tmpfs, which fills up, is enlarged, and gone afterwards."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = 4096
"""Bytes in which a tmpfs gives out room."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    folder: Path

    def resize(self, size: str) -> None:
        """To ``20m``, say."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)

    def fill(self, *, but: int = 0) -> None:
        """Leave no room, but for so many pages."""
        self.free()
        size = 0
        with (self.folder / "filler").open("ab", buffering=0) as file:
            try:
                while True:
                    size += file.write(bytes(PAGE))
            except OSError:
                file.truncate(max(size // PAGE - but, 0) * PAGE)

    def free(self) -> None:
        """Remove what ``fill`` has written."""
        (self.folder / "filler").unlink(missing_ok=True)


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Disk]:
    """Mount a disk of ``size`` at ``folder``. Without the right to mount the test is skipped."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip(f"a disk of its own cannot be mounted: {done.stderr.strip()}")
    try:
        yield Disk(folder=folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
