"""Reads datasets that were copied to the Hugging Face hub as parquet files with embedded images.

The folder of such a dataset (for example flaviagiammarino/vqa-rad or flaviagiammarino/path-vqa)
holds, directly or in ``data/``, files like ``train-00000-of-00001-eb8844602202be60.parquet`` with
the columns ``image`` (bytes), ``question`` and ``answer``. They have neither ids nor answer types:
images with equal bytes are one image, questions are numbered, and yes and no are closed answers.
The images are unpacked once, into the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from trainables.cache import folders as cache_folders
from trainables.data.common import published_files
from trainables.data.common.dataset import Example, answer_type_of
from trainables.data.common.published_files import Text
from trainables.errors import BadInput

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "test": "test"}
"""How a file's name begins -> the split that it is of."""
ROWS = 64  # read at once: bounds the memory


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image as it is in a table: the content of its file."""

    bytes: bytes

    def __post_init__(self) -> None:
        if not self.bytes:
            raise ValueError("its bytes are missing")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table; its fields are the columns that are read."""

    image: Image
    question: Text
    answer: Text

    @property
    def image_id(self) -> str:
        """Hash of the image's bytes, so that equal images share an id."""
        return hashlib.sha256(self.image.bytes).hexdigest()[:32]


def files(root: Path) -> list[Path]:
    """Parquet files of a dataset's folder, sorted; none if the folder has another layout."""
    return sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])


def read(name: str, root: Path) -> tuple[Path, dict[str, list[Example]]]:
    """Read a dataset called ``name`` from its folder, and unpack its images.

    Returns:
        The folder with the unpacked images, and the examples of each split that there is.

    Raises:
        BadInput: a file is damaged, of no split, has other columns, or a row without a text; or
            there is no room for the images.
    """
    found = files(root)
    hashed = hashlib.sha256()
    for file in found:
        with file.open("rb") as opened:
            hashed.update(hashlib.file_digest(opened, "sha256").digest())

    def unpack(folder: Path) -> None:
        for _, row in _rows(name, found):
            place = folder / row.image_id
            if not place.exists():
                place.write_bytes(row.image.bytes)

    images = cache_folders.cached_folder(
        Path("unpacked", f"{name}-{hashed.hexdigest()[:16]}"), unpack
    )
    splits: dict[str, list[Example]] = {}
    for split, row in _rows(name, found):
        examples = splits.setdefault(split, [])
        examples.append(
            Example(
                question_id=f"{split}-{len(examples) + 1}",
                image_id=row.image_id,
                image=images / row.image_id,
                question=row.question,
                answer=row.answer,
                answer_type=answer_type_of(row.answer),
            )
        )
    return images, splits


def _rows(name: str, found: list[Path]) -> Iterator[tuple[str, Row]]:
    """Yield (split, row) for every row of the files."""
    import pyarrow
    from pyarrow import parquet

    columns = [field.name for field in fields(Row)]
    for file in found:
        split = SPLITS.get(file.name.split("-")[0])
        if split is None:
            raise BadInput(
                f"{name}: {file} is of no split; a file's name begins with {', '.join(SPLITS)}"
            )
        try:
            opened = parquet.ParquetFile(file)
            lacking = [column for column in columns if column not in opened.schema_arrow.names]
            if lacking:
                raise BadInput(f"{name}: {file} has no column {', '.join(lacking)}")
            batches = opened.iter_batches(batch_size=ROWS, columns=columns)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield split, published_files.row(name, file, Row, number, row)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(f"{name}: {file} can't be read ({reason}); load it anew") from error
