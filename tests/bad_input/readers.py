"""Every reader of files that others may have written, each with a sound file to read."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from study.analysis import results_file
from study.config import study_json
from study.config.begun_study import begun_study, space_as_begun
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.inventory import overview
from study.protocol import planned
from study.search.journal import StudyJournal
from study.storage import answers, journal_reader, lease, study_files
from study.storage.study_folder import PROTOCOL, StudyFolder
from tests.bad_input.mutations import Mutation, of_bytes, of_json, of_lines
from tests.stored_studies.test_stored_studies import unpack
from tests.study.protocol.any_protocol import ANY
from tests.trainables import made_image_text, made_llava
from tests.trainables.data.pictures import picture
from tests.trainables.data.small import iu_xray, jsonl, path_vqa, slake, vqa_rad
from trainables import registry
from trainables.data.common.images import load_images
from trainables.export import tuned_json, tuned_model
from trainables.model_lookup import TINY, family_of, skeleton_of
from trainables.training import checkpoint

JOURNAL, STUDY, RESULTS = "optuna.journal", "study.json", "results.json"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A reader, which takes its file or refuses it by ``BadInput``."""

    name: str
    file: str
    """The file that it reads, below the folder that holds what it needs."""
    mutations: tuple[Mutation, ...]
    """Ways to damage the file."""
    read: Callable[[Path], object]
    """Reads what the folder holds. A command returns its exit code."""


JSON, LINES, BYTES = (of_json, of_json, of_json, of_bytes), (of_lines, of_bytes), (of_bytes,)


def command(module: str, *arguments: str) -> Callable[[Path], int]:
    """A command of the project; ``{here}`` in its arguments is the folder."""

    def run(here: Path) -> int:
        given = [argument.format(here=here) for argument in arguments]
        code: int = importlib.import_module(module).main(given)
        return code

    return run


def build(here: Path) -> list[Reader]:
    """Write the sound files into the folder ``here``; return their readers."""
    storage = unpack(here)
    study, half = storage / "finished", storage / "half"
    found = [*_of_studies(study, half), *_of_data(here), *_of_models(here), *_of_images(here)]
    for reader in found:
        assert (here / reader.file).is_file(), reader
    return found


def _of_studies(study: Path, half: Path) -> list[Reader]:
    places = ("--storage", "{here}/studies")

    def begun(here: Path) -> None:
        found = begun_study(here / "studies" / "finished")
        space_as_begun(found, StudyDefinition.parse(Settings(space="smoke")).space)
        StudyDefinition.parse(found.settings)

    def checkpointed(here: Path) -> None:
        for folder in sorted((here / "studies/finished/checkpoints").glob("*/*")):
            if checkpoint.complete(folder):
                checkpoint.weights(folder)

    def journal_of(here: Path) -> None:
        found = (here / "studies/half" / JOURNAL).read_bytes()
        journal_reader.read(found, JOURNAL)
        StudyJournal(here / "studies/half")

    def answered(here: Path) -> None:
        folder = StudyFolder(storage=here / "studies", name="finished")
        answers.read(folder, trial, "test")
        answers.scored_anew(folder, trial, ["test"])

    def leased(here: Path) -> None:
        content = (here / "driver.json").read_bytes()
        lease.holder(content)
        lease.beats(content)

    def listed(here: Path) -> None:
        for files in study_files.every(str(here / "studies")):
            overview.overview(files)

    def read_settings(here: Path) -> None:
        study_json.read(StudyFolder(storage=here / "studies", name="finished"))

    table = next((study / "answers").glob("*-test.parquet"))
    trial = table.name.removesuffix("-test.parquet")
    weights = next((study / "checkpoints").glob("*/*"))
    manifest = {
        "files": {
            file.name: checkpoint._digest(file) for file in weights.iterdir() if file.is_file()
        }
    }
    (weights / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    here = study.parents[1]
    (here / "driver.json").write_text(json.dumps({"driver": "host 1", "beat": 10**15}))
    of_checkpoint = weights.relative_to(here)
    folder, exported = "studies/finished", f"{study.relative_to(here)}/export/lora"
    results = StudyFolder(storage=study.parent, name="finished")
    assert results_file.read(results)
    planned.write(ANY, study)
    return [
        Reader(name="study.json", file=f"{folder}/{STUDY}", mutations=JSON, read=begun),
        Reader(
            name="study.json, settings",
            file=f"{folder}/{STUDY}",
            mutations=JSON,
            read=read_settings,
        ),
        Reader(
            name="study.json, status",
            file=f"studies/half/{STUDY}",
            mutations=JSON,
            read=command("study.status", "half", *places),
        ),
        Reader(
            name="results.json",
            file=f"{folder}/{RESULTS}",
            mutations=JSON,
            read=lambda _: results_file.read(results),
        ),
        Reader(
            name="results.json, report",
            file=f"{folder}/{RESULTS}",
            mutations=JSON,
            read=command("study.report", "finished", *places),
        ),
        Reader(
            name="protocol.json, report",
            file=f"{folder}/{PROTOCOL}",
            mutations=JSON,
            read=command("study.report", "finished", *places),
        ),
        Reader(
            name="results.json, status",
            file=f"{folder}/{RESULTS}",
            mutations=JSON,
            read=command("study.status", "finished", *places),
        ),
        Reader(name="list", file=f"{folder}/{RESULTS}", mutations=JSON, read=listed),
        Reader(name="journal", file=f"studies/half/{JOURNAL}", mutations=LINES, read=journal_of),
        Reader(
            name="journal, status",
            file=f"studies/half/{JOURNAL}",
            mutations=LINES,
            read=command("study.status", "half", *places),
        ),
        Reader(
            name="delete",
            file=f"{folder}/{STUDY}",
            mutations=JSON,
            read=command("study.delete", "finished", "--dry-run", *places),
        ),
        Reader(name="lease", file="driver.json", mutations=JSON, read=leased),
        Reader(
            name="answers",
            file=str(table.relative_to(here)),
            mutations=BYTES,
            read=answered,
        ),
        Reader(
            name="manifest of a checkpoint",
            file=f"{of_checkpoint}/{checkpoint.MANIFEST}",
            mutations=JSON,
            read=checkpointed,
        ),
        Reader(
            name="weights of a checkpoint",
            file=f"{of_checkpoint}/{checkpoint.WEIGHTS}",
            mutations=BYTES,
            read=checkpointed,
        ),
        Reader(
            name="tuned.json",
            file=f"{exported}/{tuned_json.FILE}",
            mutations=JSON,
            read=lambda here: tuned_json.read(here / exported),
        ),
        Reader(
            name="tuned.json, model",
            file=f"{exported}/{tuned_json.FILE}",
            mutations=JSON,
            read=lambda here: tuned_model.load(here / exported),
        ),
        Reader(
            name="weights of an export",
            file=f"{exported}/{tuned_model.WEIGHTS}",
            mutations=BYTES,
            read=lambda here: tuned_model.load(here / exported),
        ),
    ]


def _of_data(here: Path) -> list[Reader]:
    data = here / "data"
    small: dict[str, tuple[Callable[[Path], None], str, tuple[Mutation, ...]]] = {
        "jsonl": (jsonl.write, "questions.jsonl", LINES),
        "vqa_rad": (vqa_rad.write, "*.json", JSON),
        "slake": (slake.write, "train.json", JSON),
        "iu_xray": (iu_xray.write, "annotation.json", JSON),
        "path_vqa": (path_vqa.write, "**/*train*.pkl", BYTES),
    }
    found = []
    for name, (write, pattern, mutations) in small.items():
        root = data / name
        root.mkdir(parents=True)
        write(root)

        def load(_: Path, name: str = name, root: Path = root) -> None:
            registry.DATASETS.find(name).load(root)

        file = str(min(root.glob(pattern)).relative_to(here))
        found.append(Reader(name=name, file=file, mutations=mutations, read=load))
    published = data / "hub"
    (published / "data").mkdir(parents=True)
    picture(published / "0.png", 0)
    image = {"bytes": (published / "0.png").read_bytes(), "path": None}
    rows = [{"image": image, "question": f"is this {i} ?", "answer": "no"} for i in range(8)]
    for split in ("train", "test"):
        file = f"data/{split}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows), published / file)

    def parquet(_: Path) -> None:
        registry.DATASETS.find("vqa_rad").load(published)

    file = str((published / file).relative_to(here))
    return [*found, Reader(name="hub's parquet", file=file, mutations=BYTES, read=parquet)]


def _of_models(here: Path) -> list[Reader]:
    found = []
    folders = {
        "blip": shutil.copytree(TINY, here / "models" / "blip"),
        "llava": made_llava.write(here / "models" / "llava"),
        "gemma3": made_image_text.write(here / "models" / "gemma3", "gemma3"),
    }

    def counted(folder: Path) -> Callable[[Path], object]:
        return lambda _: skeleton_of(str(folder))

    def loaded(folder: Path) -> Callable[[Path], object]:
        def load(_: Path) -> None:
            family, path = family_of(str(folder))
            registry.FAMILIES.find(family).load(path)

        return load

    for name, folder in folders.items():
        for file in folder.iterdir():
            file.chmod(0o644)
            of_file = {".json": JSON, ".safetensors": BYTES}.get(file.suffix)
            if of_file is None:
                continue
            place = str(file.relative_to(here))
            read = loaded(folder)
            title = f"{name}: {file.name}"
            found.append(Reader(name=title, file=place, mutations=of_file, read=read))
            if file.name == "config.json":
                read = counted(folder)
                found.append(Reader(name=f"{title}, plan", file=place, mutations=JSON, read=read))
    (here / "deepspeed.json").write_text(
        json.dumps({"zero_optimization": {"stage": 1}, "gradient_clipping": 1.0})
    )

    def deepspeed(here: Path) -> None:
        settings = Settings(space="smoke", deepspeed=str(here / "deepspeed.json"))
        StudyDefinition.parse(settings).check_engine()

    return [
        *found,
        Reader(name="deepspeed", file="deepspeed.json", mutations=JSON, read=deepspeed),
    ]


def _of_images(here: Path) -> list[Reader]:
    folder = here / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (24, 24), np.uint8)
    deep = Image.fromarray(generator.integers(0, 2**16, (24, 24), np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    made: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "a.jpg": (Image.fromarray(grey), {"exif": exif}),
        "b.png": (Image.fromarray(grey).convert("RGBA"), {"exif": exif}),
        "c.png": (deep, {}),
        "d.tif": (Image.fromarray(grey), {"compression": "tiff_deflate"}),
        "e.tif": (deep, {}),
        "f.tif": (Image.fromarray(grey.astype(np.float32)), {}),
        "g.gif": (Image.fromarray(grey), {}),
        "h.webp": (Image.fromarray(grey).convert("RGB"), {}),
        "i.bmp": (Image.fromarray(grey), {}),
        "j.jp2": (Image.fromarray(grey), {}),
    }
    for name, (image, settings) in made.items():
        image.save(folder / name, **settings)
    return [
        Reader(
            name=f"image {name}",
            file=f"pictures/{name}",
            mutations=BYTES,
            read=lambda _, name=name: load_images([folder / name], 32),
        )
        for name in made
    ]


torch.set_num_threads(1)
