"""phantom: radiology-like pictures drawn by this project, for learning and testing the system.

It has 540 pictures of body phantoms (x ray, ct, mri, ultrasound; axial, coronal, sagittal; eight
organs; masses, cysts, fractures, effusions) and 2,286 questions about them. *Nothing here is
clinical*: a score on it says that the system works, and nothing about medicine.

Conventions: left and right are the halves of the image as one looks at it. A mass is a bright round
lesion, a cyst a dark one. All lesions of an image have one size.

The data are drawn on first use (a second or two) and are the same to the last bit everywhere:
``DIGEST`` is checked whenever they are loaded, and data that differ are drawn again. They lie in
``phantom-v1/`` below the user's cache folder, or below the folder given as ``--data-root``:

- ``questions.jsonl``: a line for each question, with ``split`` ("train", "validation" or "test"),
  ``question_id``, ``image_id``, ``image`` (path in this folder), ``question``, ``answer``,
  ``answer_type`` ("open" or "closed") and ``question_type``;
- ``images/*.pgm``: binary greyscale, 96 x 96, 8 bits; a format without compression, since the bytes
  of compressed files depend on the version of the library.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trainables.cache import folders as cache_folders
from trainables.data._phantom import questions
from trainables.data._phantom.bits import Bits
from trainables.data._phantom.cases import Case, cases_of
from trainables.data._phantom.drawing import draw
from trainables.data.common import dataset
from trainables.data.common.dataset import Dataset, Example
from trainables.errors import BadInput

VERSION = 1  # version of the content; raise it when the content changes
SEED = 20261  # decides every bit of the dataset
DIGEST = "011ea3b19a004a1cc22b29156d56c250ab7a223fa99d0d057f772365200be2b4"
DESCRIPTION = "drawn body phantoms and balanced questions; to test the system, not clinical"

# Split -> (number of images, how often the plan of questions is repeated)
SPLITS = {"train": (360, 6), "validation": (60, 1), "test": (120, 2)}


def load(root: Path | None) -> Dataset:
    """Load the phantom dataset, and draw it first if it isn't there yet.

    Args:
        root: the folder to keep it in. If it is None or can't be written, the user's cache folder
            is used, or a temporary one.

    Raises:
        BadInput: no folder can be written.
    """
    homes = cache_folders.folders() if root is None else [root, *cache_folders.folders()]
    folders = [home / f"phantom-v{VERSION}" for home in homes]
    refused = []
    for folder in folders:
        found = _read_if_whole(folder)
        if found is not None:
            return found
        try:
            _write(folder)
        except OSError as error:
            refused.append(f"{folder} ({error.strerror})")
            continue
        return _checked(_read(folder))
    raise BadInput(
        f"phantom can't be written to {' or '.join(refused)}; give a folder with --data-root DIR"
    )


def words() -> frozenset[str]:
    """All words of the questions and answers, in lower case and without punctuation."""
    return questions.words()


def _read_if_whole(folder: Path) -> Dataset | None:
    """The dataset in ``folder``, or None unless its digest is the expected one."""
    try:
        found = _read(folder)
    except (BadInput, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # no such folder, or files that are missing, truncated or of another origin
    return found if found.digest == DIGEST else None


def _read(folder: Path) -> Dataset:
    folder = folder.absolute()
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        splits[row.pop("split")].append(Example(**{**row, "image": folder / row["image"]}))
    return dataset.build(name="phantom", description=DESCRIPTION, root=folder, **splits)


def _checked(drawn: Dataset) -> Dataset:
    """Return the dataset that was drawn, if its digest is the expected one."""
    if drawn.digest != DIGEST:
        raise RuntimeError(
            f"phantom was drawn with digest {drawn.digest} instead of {DIGEST}: its generator was "
            "changed (then raise VERSION and renew DIGEST) or this machine calculates differently"
        )
    return drawn


def _write(folder: Path) -> None:
    """Draw the dataset beside ``folder``, then move it there in one step.

    Several processes may do so at once. The first to finish provides the folder. The others, and a
    process that repairs a damaged folder, replace its files one by one with equal ones, each in one
    step.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        drawn = Path(beside) / folder.name
        for name, content in _files():
            file = drawn / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        try:
            drawn.rename(folder)
        except OSError:
            for file in sorted(path for path in drawn.rglob("*") if path.is_file()):
                place = folder / file.relative_to(drawn)
                place.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place)


def _files() -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of every file of the dataset."""
    bits = Bits(SEED)
    rows = []
    for split, (images, times) in SPLITS.items():
        cases = cases_of(split, images, bits)
        for case in cases:
            yield _image_name(case), _pgm(case)
        for index, asked in enumerate(questions.ask(cases, times, bits)):
            row = {
                "split": split,
                "question_id": f"{split}-{index:04d}",
                "image_id": asked.case.image_id,
                "image": _image_name(asked.case),
                "question": asked.question,
                "answer": asked.answer,
                "answer_type": asked.answer_type,
                "question_type": asked.question_type,
            }
            rows.append(json.dumps(row) + "\n")
    yield "questions.jsonl", "".join(rows).encode()


def _image_name(case: Case) -> str:
    return f"images/{case.image_id}.pgm"


def _pgm(case: Case) -> bytes:
    """The image of a case as a binary PGM file."""
    image = draw(case)
    height, width = image.shape
    return f"P5\n{width} {height}\n255\n".encode() + image.tobytes()
