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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.cache import folders as cache_folders
from trainables.data.common import published_files
from trainables.data.common.dataset import Example, answer_type_of
from trainables.errors import BadInput

if TYPE_CHECKING:
    from trainables.data.common.dataset import AnswerType

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "test": "test"}
"""How a file's name begins -> the split that it is of."""
TEXTS = ("question", "answer")
COLUMNS = ("image", *TEXTS)
ROWS = 64  # read at once: bounds the memory


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
            place = folder / _image_id(row)
            if not place.exists():
                place.write_bytes(row["image"]["bytes"])

    images = cache_folders.cached_folder(
        Path("unpacked", f"{name}-{hashed.hexdigest()[:16]}"), unpack
    )
    splits: dict[str, list[Example]] = {}
    for split, row in _rows(name, found):
        examples = splits.setdefault(split, [])
        answer_type: AnswerType = answer_type_of(row["answer"])
        examples.append(
            Example(
                question_id=f"{split}-{len(examples) + 1}",
                image_id=_image_id(row),
                image=images / _image_id(row),
                question=row["question"],
                answer=row["answer"],
                answer_type=answer_type,
            )
        )
    return images, splits


def _rows(name: str, found: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (split, row) for every row of the files."""
    import pyarrow
    from pyarrow import parquet

    for file in found:
        split = SPLITS.get(file.name.split("-")[0])
        if split is None:
            raise BadInput(
                f"{name}: {file} is of no split; a file's name begins with {', '.join(SPLITS)}"
            )
        try:
            opened = parquet.ParquetFile(file)
            lacking = [column for column in COLUMNS if column not in opened.schema_arrow.names]
            if lacking:
                raise BadInput(f"{name}: {file} has no column {', '.join(lacking)}")
            batches = opened.iter_batches(batch_size=ROWS, columns=list(COLUMNS))
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                if not (row["image"] or {}).get("bytes"):
                    raise BadInput(f"{name}: {file} has a row without an image's bytes")
                with published_files.reading(name, file, number):
                    texts = {field: published_files.text(row, field) for field in TEXTS}
                yield split, row | texts
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(f"{name}: {file} can't be read ({reason}); load it anew") from error


def _image_id(row: dict[str, Any]) -> str:
    """Id of a row's image, a hash of its bytes, so that equal images share an id."""
    return hashlib.sha256(row["image"]["bytes"]).hexdigest()[:32]
