"""A model and a dataset, loaded once and kept: what every trial of a process shares."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables import hub, registry
from trainables.data import splits
from trainables.errors import BadInput, unknown

if TYPE_CHECKING:
    import torch

    from trainables.data.dataset import Dataset, Example
    from trainables.kept import Progress
    from trainables.models.contract import Batch, Model, Row, Skeleton

TINY = Path(__file__).parent / "models" / "tiny"


@dataclass(frozen=True, kw_only=True)
class WorkloadConfig:
    """Which model on which data."""

    model: str = "tiny"
    """``tiny``, which ships with the project, a folder with a model, or ``hub:NAME``."""
    data: str = "phantom"
    """A dataset, or several with commas between: then they are one."""
    data_root: str | None = None
    """Where they lie: a dataset in the folder of its name there, or, without one, there itself. A
    folder, or ``hub:NAME``."""
    split: str = "official"
    """``official``, or ``by_image``: split anew, so that no image is in two splits."""
    image_size: int | None = None
    """Pixels a side; None: as the model has it."""
    beams: int | None = None
    """Of the search for an answer; None: as the model has it."""
    precision: str = "fp32"
    """That trials compute in, ``fp32`` or ``bf16``; it decides how a family holds its weights."""
    resident: bool = True
    """The base is on the device. Else it is in host memory: each trial brings it there, or, under
    ZeRO-3, a part of it, so that it may be larger than the device."""

    def check(self) -> None:
        """Look at names and folders, without loading anything.

        Raises:
            BadInput: a dataset, its folder, the split or the model does not exist.
        """
        names = self.data.split(",")
        for name in names:
            registry.find("dataset", *registry.DATASETS, name)
        if len(set(names)) < len(names):
            raise BadInput(f"--data {self.data} names a dataset twice; name each once")
        if self.split not in splits.SPLITS:
            raise unknown("split", self.split, splits.SPLITS)
        if self.data_root and not hub.folder(self.data_root, "dataset").is_dir():
            raise BadInput(f"--data-root {self.data_root} is not a folder")
        family_of(self.model)

    def dataset(self) -> Dataset:
        """Read the questions, and look whether their images are there.

        Raises:
            BadInput: something is missing or not as the dataset's authors publish it.
        """
        found = [self._read(name) for name in self.data.split(",")]
        if self.split == "by_image":
            found = [splits.by_image(dataset) for dataset in found]
        return splits.joined(found)

    def load_model(self) -> tuple[Model, torch.device]:
        """The model, and the device that there is, which it is on if it is to be resident.

        Raises:
            BadInput: its folder is not as the family's are.
        """
        import torch

        family, path = family_of(self.model)
        module = registry.find("model family", *registry.FAMILIES, family)
        model: Model = module.load(path, self.image_size, self.precision)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.resident:
            model.network.to(device)
        return model, device

    def _read(self, name: str) -> Dataset:
        root = hub.folder(self.data_root, "dataset") if self.data_root else None
        if root is not None and (root / name).is_dir():
            root /= name
        dataset: Dataset = registry.find("dataset", *registry.DATASETS, name).load(root)
        return dataset


def family_of(model: str) -> tuple[str, Path]:
    """The family (a file of ``trainables.models``) and the folder of a model's weights.

    Raises:
        BadInput: neither a shipped model nor a folder with a ``config.json`` of a known family.
    """
    path = TINY if model == "tiny" else hub.folder(model, "model")
    config = path / "config.json"
    if model in registry.presets() and not config.is_file():
        raise BadInput(
            f"model {model!r} is a preset without weights, for study.plan to count; "
            "give a folder that has some"
        )
    if not config.is_file():
        raise BadInput(
            f"unknown model {model!r}: give 'tiny', a folder that has a config.json, or hub:NAME"
        )
    said = json.loads(config.read_text(encoding="utf-8"))
    if "mm_vision_tower" in said:
        raise BadInput(
            f"{path} is in the layout of LLaVA's authors; convert it: "
            f"python -m trainables.models.convert_llava {model} --out DIR"
        )
    family = str(said.get("model_type"))
    known = registry.names(*registry.FAMILIES)
    if family not in known:
        raise BadInput(f"{config} is of family {family!r}; there are: {', '.join(known)}")
    return family, path


def skeleton_of(model: str, image_size: int | None = None, precision: str = "fp32") -> Skeleton:
    """The structure of a preset, of ``tiny`` or of a folder's model, without weights; for images of
    another size than its own, if one is given, and held as for trials in ``precision``.

    Raises:
        BadInput: it is none of them.
    """
    presets = registry.presets()
    source: str | Path = model
    if model == "tiny" or model.startswith(hub.PREFIX) or Path(model, "config.json").is_file():
        family, source = family_of(model)
    elif model in presets:
        family = presets[model]
    else:
        raise unknown("model", model, ("tiny", *presets, "a folder that has a config.json"))
    found: Skeleton = registry.find("model family", *registry.FAMILIES, family).skeleton(
        source, image_size, precision
    )
    return found


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The resident base model and the tokenised, decoded data."""

    model: Model
    dataset: Dataset
    images_NSSC: np.ndarray[Any, Any]
    """All images, uint8 RGB, at the model's size; mapped from a file, not to be written to."""
    rows: Mapping[str, tuple[Row, ...]]
    """Split -> its questions, tokenised, in the dataset's order."""
    device: torch.device
    answer_tokens: int = 10
    """Of an answer at most, its end included; the rest is cut off. See ``_answer_tokens``."""
    beams: int = 1
    """Of the search for an answer; 1 is greedy."""

    @classmethod
    def load(
        cls,
        config: WorkloadConfig,
        dataset: Dataset | None = None,
        *,
        progress: Progress | None = None,
    ) -> Workload:
        """Read weights, images and questions; ``dataset`` if it was read already. ``progress`` is
        told how many images are decoded, the first time that this model meets these images.

        Raises:
            BadInput: something named in ``config`` is not there or not readable.
        """
        dataset = dataset or config.dataset()
        model, device = config.load_model()
        loaded = cls.of(model, dataset, device, progress)
        return replace(loaded, beams=config.beams or model.beams)

    def on(self, dataset: Dataset) -> Workload:
        """The same resident model on other data; answers are as long as they were trained to be."""
        other = self.of(self.model, dataset, self.device, None, self.answer_tokens)
        return replace(other, beams=self.beams)

    @classmethod
    def of(
        cls,
        model: Model,
        dataset: Dataset,
        device: torch.device,
        progress: Progress | None,
        answer_tokens: int | None = None,
    ) -> Workload:
        """A model that is there, on data that were read."""
        from trainables.data.cache import cached_images

        index = {image_id: i for i, (image_id, _) in enumerate(dataset.images())}

        def rows(examples: Sequence[Example]) -> tuple[Row, ...]:
            return tuple(
                model.tokenize(question=e.question, answer=e.answer, image=index[e.image_id])
                for e in examples
            )

        splits = {split: rows(examples) for split, examples in dataset.splits().items()}
        answer_tokens = answer_tokens or _answer_tokens(splits["train"])
        return cls(
            model=model,
            dataset=dataset,
            images_NSSC=cached_images(dataset, model.image_size, progress=progress),
            rows={s: tuple(_cut(row, answer_tokens) for row in rows) for s, rows in splits.items()},
            device=device,
            answer_tokens=answer_tokens,
        )

    @property
    def resident(self) -> bool:
        """The base is on the device; see ``WorkloadConfig``."""
        return all(p.device.type == self.device.type for p in self.model.network.parameters())

    @property
    def computes_ahead(self) -> bool:
        """The device works off what it is told while this process goes on: so the next batch can
        be put together, and be on its way, meanwhile."""
        return self.device.type != "cpu"

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """The questions of ``split`` at ``indices`` as one batch."""
        rows = self.rows[split]
        return self.model.collate([rows[i] for i in indices], self.images_NSSC).to(self.device)


def _answer_tokens(rows: Sequence[Row]) -> int:
    """How long an answer may be: as 99 of 100 training answers are, but at least as MISS was
    trained. It follows from the data: a word for a question, some sentences for a report."""
    from trainables.models.contract import ANSWER_TOKENS

    lengths = sorted(len(row.answer) for row in rows)
    return max(ANSWER_TOKENS, lengths[math.ceil(0.99 * len(lengths)) - 1])


def _cut(row: Row, answer_tokens: int) -> Row:
    """With the first tokens of its answer and the end."""
    *words, end = row.answer
    return replace(row, answer=(*words[: answer_tokens - 1], end))
