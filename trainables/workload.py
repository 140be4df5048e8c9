"""Workload: a model and a dataset, loaded once and shared by all trials of a process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from trainables import registry
from trainables.cache import hub
from trainables.data.common import splits
from trainables.data.common.wording import DEFAULT_ASKING, Asking
from trainables.errors import BadInput, unknown
from trainables.measures.common.options import choices_of
from trainables.model_lookup import family_of
from trainables.models.common import quantisation

if TYPE_CHECKING:
    import numpy as np
    import torch

    from trainables.cache.arrays import Progress
    from trainables.data.common.dataset import Dataset, Example
    from trainables.model_contract import Batch, Model, Row

PRECISIONS = ("fp32", "bf16")
"""Precisions in which trials compute."""


@dataclass(frozen=True, kw_only=True)
class WorkloadConfig:
    """Names of the model and the data, and how to load them."""

    model: str = "tiny"
    """Base model: ``tiny``, which ships with the project; a folder; or ``hub:NAME``."""
    data: str = "phantom"
    """Name of a dataset, or names of several, separated by commas, that are joined into one."""
    data_root: str | None = None
    """Folder of the data, or ``hub:NAME``. A dataset lies in the subfolder of its name or, without
    such a subfolder, in the folder itself."""
    split: str = "official"
    """Split of the data: ``official``, or ``by_image``, a new one with no image in two parts."""
    image_size: int | None = None
    """Pixels a side of an image; None: the model's own size."""
    beams: int | None = None
    """Number of beams in the search for an answer; None: the model's own number."""
    precision: str = "fp32"
    """Precision of trials; it also decides how a family holds its weights."""
    prompt: str = DEFAULT_ASKING.prompt
    """Prompt with which questions are asked; see ``Asking``."""
    system: str = DEFAULT_ASKING.system
    """System message with which questions are asked; empty if there is none."""
    base_bits: quantisation.BaseBits | None = None
    """How the base is quantised; None: it is not."""
    resident: bool = True
    """Whether the base stays on the device. Otherwise it is in host memory, and each trial moves it
    to the device or, under ZeRO-3, a part of it, so that it may be larger than the device."""

    @property
    def asking(self) -> Asking:
        """Prompt and system message.

        Raises:
            BadInput: one of them cannot be.
        """
        return Asking(prompt=self.prompt, system=self.system)

    def check(self) -> None:
        """Check names, folders and texts without loading anything.

        Raises:
            BadInput: a dataset, its folder, the split or the model does not exist, or the prompt or
                the system message cannot be.
        """
        assert self.asking
        names = self.data.split(",")
        for name in names:
            registry.DATASETS.find(name)
        if len(set(names)) < len(names):
            raise BadInput(f"--data {self.data} names a dataset twice; name each once")
        if self.split not in splits.SPLITS:
            raise unknown("split", self.split, splits.SPLITS)
        if self.data_root and not hub.local_folder(self.data_root, "dataset").is_dir():
            raise BadInput(f"--data-root {self.data_root} is not a folder")
        family_of(self.model)

    def dataset(self) -> Dataset:
        """Read the questions and check that their images exist.

        Raises:
            BadInput: something is missing or not as the dataset's authors publish it.
        """
        found = [self._read(name) for name in self.data.split(",")]
        if self.split == "by_image":
            found = [splits.by_image(dataset) for dataset in found]
        return splits.joined(found)

    def load_model(self) -> tuple[Model, torch.device]:
        """Load the model, quantise it if that is asked, and choose the device; a resident model is
        moved to the device.

        Raises:
            BadInput: the model's folder is not as its family expects, or nothing in the model can
                be quantised.
        """
        from trainables.devices import accelerator

        family, path = family_of(self.model)
        module = registry.FAMILIES.find(family)
        model: Model = module.load(path, self.image_size, self.precision)
        device = accelerator.current()
        if self.base_bits is not None:
            quantisation.quantise(model, self.base_bits, device)
            model.digest = quantisation.digest(model)
        model.network.to(device if self.resident else "cpu")
        return model, device

    def _read(self, name: str) -> Dataset:
        root = hub.local_folder(self.data_root, "dataset") if self.data_root else None
        if root is not None and (root / name).is_dir():
            root /= name
        dataset: Dataset = registry.DATASETS.find(name).load(root)
        return dataset


class AnswerOption(NamedTuple):
    """An option of a question, as an answer to it."""

    answer: str
    """The option, written as the question's answer is."""
    tokens: tuple[int, ...]
    """Tokens of ``answer``, as in ``Row.answer``; never cut to ``Workload.answer_tokens``."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Base model with tokenised questions and decoded images."""

    model: Model
    dataset: Dataset
    images_NSSC: np.ndarray[Any, Any]
    """All images, uint8 RGB, at the model's size; mapped from a file, not to be written to."""
    rows: Mapping[str, tuple[Row, ...]]
    """Tokenised questions of each split, in the dataset's order."""
    device: torch.device
    answer_tokens: int = 10
    """Maximum number of tokens of an answer, its end token included (``_answer_tokens``)."""
    limiting_positions: int | None = None
    """Number of positions of the model's decoder, if answers get fewer tokens than the data have
    because of it."""
    beams: int = 1
    """Number of beams in the search for an answer; 1 is greedy."""
    asking: Asking = DEFAULT_ASKING
    """Prompt and system message with which the questions are asked."""
    division: int = 0
    """Number of the division of the data by image (``splits.by_image``): 0 is the data's own."""
    digest: str = ""
    """Digest of the model, of version 2 (``trainables.models.common.model_identity``); empty for a
    model that is in no folder."""
    _asked: dict[Asking, Workload] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What ``asked`` has made."""
    _divided: dict[int, Workload] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What ``divided`` has made."""
    _options: dict[str, Mapping[int, Sequence[AnswerOption]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def load(
        cls,
        config: WorkloadConfig,
        dataset: Dataset | None = None,
        *,
        progress: Progress | None = None,
    ) -> Workload:
        """Read weights and images, and the questions unless ``dataset`` was read already.

        ``progress`` is called with the number of decoded images. Images are decoded only the first
        time that this model meets them.

        Raises:
            BadInput: something named in ``config`` does not exist or can't be read.
        """
        from trainables.models.common import model_identity

        dataset = dataset or config.dataset()
        model, device = config.load_model()
        loaded = cls.from_parts(model, dataset, device, progress, asking=config.asking)
        _, folder = family_of(config.model)
        return replace(
            loaded,
            beams=config.beams or model.beams,
            digest=model_identity.digest(model, folder),
        )

    def with_dataset(self, dataset: Dataset) -> Workload:
        """Workload of the same model on other data; the maximum length of answers stays."""
        other = self.from_parts(
            self.model, dataset, self.device, None, self.answer_tokens, self.asking
        )
        return replace(other, beams=self.beams, digest=self.digest)

    def divided(self, division: int) -> Workload:
        """The workload with its data divided by image for another time; the same one whenever it is
        called. Images and tokens are shared, and the maximum length of answers stays."""
        if division == self.division:
            return self
        assert self.division == 0, "only the data's own division is divided again"
        if division not in self._divided:
            dataset = splits.by_image(self.dataset, division)
            rows = {
                example.question_id: row
                for split, examples in self.dataset.splits().items()
                for example, row in zip(examples, self.rows[split], strict=True)
            }
            self._divided[division] = replace(
                self,
                dataset=dataset,
                rows={
                    split: tuple(rows[example.question_id] for example in examples)
                    for split, examples in dataset.splits().items()
                },
                division=division,
            )
        return self._divided[division]

    def asked(self, asking: Asking) -> Workload:
        """The workload whose questions are asked with this prompt and system message; the same one
        whenever it is called. The maximum length of answers stays.

        Raises:
            BadInput: the model takes no system message, or a question is too long for it.
        """
        if asking == self.asking:
            return self
        if asking not in self._asked:
            rows = _rows(self.model, self.dataset, asking)
            _room(self.model, rows, self.answer_tokens)
            self._asked[asking] = replace(
                self, asking=asking, rows=_all_cut(rows, self.answer_tokens)
            )
        return self._asked[asking]

    @classmethod
    def from_parts(
        cls,
        model: Model,
        dataset: Dataset,
        device: torch.device,
        progress: Progress | None,
        answer_tokens: int | None = None,
        asking: Asking = DEFAULT_ASKING,
    ) -> Workload:
        """Workload of a loaded model and a dataset that was read.

        Raises:
            BadInput: as by ``asked``.
        """
        from trainables.data.common.image_cache import cached_images

        rows = _rows(model, dataset, asking)
        room = _room(model, rows, answer_tokens or 0)
        wanted = answer_tokens or _answer_tokens(rows["train"])
        answer_tokens = wanted if room is None else min(wanted, room)
        loaded = cls(
            model=model,
            dataset=dataset,
            images_NSSC=cached_images(dataset, model.image_size, progress=progress),
            rows=_all_cut(rows, answer_tokens),
            device=device,
            answer_tokens=answer_tokens,
            limiting_positions=getattr(model, "positions", None)
            if answer_tokens < wanted
            else None,
            asking=asking,
        )
        if room is not None:
            for split in rows:
                loaded.options(split)  # refuses those that are too long
        return loaded

    @property
    def resident(self) -> bool:
        """Whether the base is on the device, as ``WorkloadConfig.resident`` asks for."""
        return all(p.device.type == self.device.type for p in self.model.network.parameters())

    @property
    def computes_ahead(self) -> bool:
        """Whether the device computes asynchronously, so that this process can prepare and send the
        next batch meanwhile."""
        return self.device.type != "cpu"

    def options(self, split: str) -> Mapping[int, Sequence[AnswerOption]]:
        """Index of each question of ``split`` that has options -> the options as answers."""
        if split not in self._options:
            examples = self.dataset.splits()[split]
            self._options[split] = {
                i: self._as_answers(example)
                for i, example in enumerate(examples)
                if example.options
            }
        return self._options[split]

    def _as_answers(self, example: Example) -> list[AnswerOption]:
        return self._tokenized(example, choices_of(example)[0])

    def _tokenized(self, example: Example, answers: Sequence[str]) -> list[AnswerOption]:
        wording = self.asking.wording(example.options)
        rows = [
            self.model.tokenize(question=example.question, answer=answer, image=0, wording=wording)
            for answer in answers
        ]
        for row in rows:
            _room(self.model, {"": [row]}, len(row.answer))
        return [AnswerOption(a, row.answer) for a, row in zip(answers, rows, strict=True)]

    def choices(self, split: str) -> Mapping[int, Sequence[AnswerOption]]:
        """Index of each question of ``split`` whose possible answers are known -> these answers:
        its options, or yes and no."""
        examples = self.dataset.splits()[split]
        known = {i: choices_of(example)[0] for i, example in enumerate(examples)}
        return dict(self.options(split)) | {
            i: self._tokenized(examples[i], answers)
            for i, answers in known.items()
            if answers and not examples[i].options
        }

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Batch of the questions of ``split`` at ``indices``."""
        rows = self.rows[split]
        return self.model.collate([rows[i] for i in indices], self.images_NSSC).to(self.device)


def _rows(model: Model, dataset: Dataset, asking: Asking) -> dict[str, tuple[Row, ...]]:
    """Tokenised questions of each split, with whole answers.

    Raises:
        BadInput: the model takes no system message, or a question is too long for it.
    """
    index = {image_id: i for i, (image_id, _) in enumerate(dataset.images())}
    return {
        split: tuple(
            model.tokenize(
                question=e.question,
                answer=e.answer,
                image=index[e.image_id],
                wording=asking.wording(e.options),
            )
            for e in examples
        )
        for split, examples in dataset.splits().items()
    }


def _room(model: Model, rows: Mapping[str, Sequence[Row]], needed: int) -> int | None:
    """Number of tokens that an answer to any of these questions may have; None for any number.

    Raises:
        BadInput: it is smaller than ``needed``.
    """
    from trainables.model_contract import answer_room

    room = answer_room(model, [row for some in rows.values() for row in some])
    if room is not None and room < needed:
        raise BadInput(
            f"{model.name} has positions for an answer of {room} tokens after the longest question "
            f"with its image, options and prompt, but answers or options have {needed}; shorten "
            "the prompt, or leave out such questions"
        )
    return room


def _answer_tokens(rows: Sequence[Row]) -> int:
    """Maximum number of tokens of an answer: 99 of 100 training answers are no longer than this.

    The number is at least the one that MISS was trained with. It follows from the data: a word for
    a question, some sentences for a radiology report. Longer answers are cut off.
    """
    from trainables.model_contract import ANSWER_TOKENS

    lengths = sorted(len(row.answer) for row in rows)
    return max(ANSWER_TOKENS, lengths[math.ceil(0.99 * len(lengths)) - 1])


def _all_cut(rows: Mapping[str, Sequence[Row]], answer_tokens: int) -> dict[str, tuple[Row, ...]]:
    """The rows of each split with their answers cut."""
    return {split: tuple(_cut(row, answer_tokens) for row in some) for split, some in rows.items()}


def _cut(row: Row, answer_tokens: int) -> Row:
    """The row with only the first tokens of its answer and the end token."""
    *words, end = row.answer
    return replace(row, answer=(*words[: answer_tokens - 1], end))
