"""Writes what pip writes about a package, so that another version of it seems to be installed."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, package: str, version: str) -> None:
    """Write what pip writes about a package that it has installed in a folder."""
    about = folder / f"{package}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
