"""What a trial has on disk: its last checkpoint, whole or not at all.

Ranks of one trial may be on machines that share the folder, or on some that do not: then each
machine has a folder of that path with what its own ranks wrote, and only all of them together are
the checkpoint. Whoever keeps folders (``study.storage``) brings them together.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from trainables import ranks
from trainables.engine import Engine

WEIGHTS, REPORT, ENGINE = "trained.safetensors", "report.json", "engine.txt"


def write(folder: Path, seen: int, running: Engine, kind: str, report: Mapping[str, Any]) -> bool:
    """Write a checkpoint into ``folder`` and remove those before; all ranks do it together.

    Args:
        folder: the trial's alone. What is there of this very point already stays as it is.
        seen: examples seen so far; names the checkpoint.
        running: gives what is trained and writes its optimizer's state.
        kind: of the engine and the ranks whose state it is; see ``last``.
        report: what is said of this point.

    Returns:
        whether this rank answers for the folder: one of those that share it does.
    """
    name = f"{seen:012d}"
    if ranks.of_first((folder / name).is_dir()):
        return ranks.here().first
    partial = folder / f"partial-{name}-{ranks.of_first(uuid.uuid4().hex)}"
    try:
        partial.mkdir(parents=True)
        answers = True
    except FileExistsError:  # by another rank, which shares it
        answers = False
    ranks.wait()
    trained = running.trained()
    running.save(partial)
    if ranks.here().first:
        save_file(trained, partial / WEIGHTS)
        (partial / REPORT).write_text(json.dumps(report), encoding="utf-8")
        (partial / ENGINE).write_text(kind, encoding="utf-8")
    ranks.wait()
    if answers:
        partial.rename(folder / name)
        for older in folder.iterdir():
            if older.name != name:
                shutil.rmtree(older)
    ranks.wait()
    return answers


def last(folder: Path, kind: str) -> Path | None:
    """The last whole checkpoint; None if there is none, or one of another ``kind``, which keeps its
    state otherwise."""
    saved = sorted(path for path in folder.glob("[0-9]*") if path.is_dir())
    if not saved or not (saved[-1] / ENGINE).is_file():
        return None
    return saved[-1] if (saved[-1] / ENGINE).read_text(encoding="utf-8") == kind else None


def read(checkpoint: Path, running: Engine) -> tuple[int, dict[str, Any]]:
    """Give an engine back what was saved; examples seen, and what was said."""
    running.restore(checkpoint, load_file(checkpoint / WEIGHTS))
    return int(checkpoint.name), json.loads((checkpoint / REPORT).read_text(encoding="utf-8"))
