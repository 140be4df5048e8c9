"""Settings that the user gave: checked at once, stored with the study, compared on resume."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search_spaces.declare import Budget, Space
from study.config import goals, spaces, spending_limit
from study.config.budget import ALLOCATE
from study.storage.study_folder import SETTINGS
from trainables.errors import BadInput, unknown
from trainables.training.regime import Regime
from trainables.workload import WorkloadConfig

ENGINES = ("auto", "off", "0", "1", "2", "3", "2-offload", "3-offload")
PRECISIONS = ("auto", "fp32", "bf16")
PROBE_BYTES = 2**16
"""That are written to see that a storage folder can be written: a study begins with less."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a study's trials and numbers, and nothing else."""

    space: str
    model: str = "tiny"
    data: str = "phantom"
    data_root: str | None = None
    split: str = "official"
    """Division of the data: ``official``, or ``by_image``, a new one in which no image is in two
    splits."""
    allow_leak: bool = False
    """Whether to run although test questions are in the training split."""
    image_size: int | None = None
    """Pixels a side of an image; None: as the model has it."""
    beams: int | None = None
    """Beams of the search for an answer; None: as the model or its paper has it."""
    label_smoothing: float = 0.0
    """Label smoothing of the training loss. The validation loss, which trials are compared by, has
    none."""
    questions_per_image: int = 1
    """Questions about an image that come one after another in training; see
    ``trainables.training.data_order``."""
    group_by_length: bool = False
    """Whether texts of like length form a batch in training; see
    ``trainables.training.data_order``."""
    ood: str | None = None
    """Datasets, separated by commas, that are never trained on and that confirmed winners are
    scored on too."""
    trials: int | None = None
    """Trials of the search; None: as many as the space suggests. ``max_examples`` has the same
    default."""
    max_examples: int | None = None
    allowance: str | None = None
    """Spending limit, as ``--budget`` takes it; see ``study.config.spending_limit.parse``."""
    allocate: str = "floor"
    """Division of the trials among arms: a key of ``study.config.budget.ALLOCATE``."""
    seed: int = 0
    seeds: int = 3
    """Confirmations of each arm's best, each with a seed of its own."""
    objective: str = "score"
    """What the search minimises; see ``study.config.goals.parse_objectives``."""
    under: str | None = None
    """Costs that an arm's best must stay below; see ``study.config.goals.parse_limits``."""
    margin: float = 1.0
    """Points by which an arm may be worse and still count as not worse. It is set before the
    study."""
    deepspeed: str = "auto"
    precision: str = "auto"

    def check(self) -> Space:
        """Check all values without importing anything heavy, and return the space that they name.

        Raises:
            BadInput: a value is impossible; see also ``spaces.load`` and ``WorkloadConfig.check``.
        """
        for name, least in {
            "trials": 1,
            "max_examples": 1,
            "seed": 0,
            "seeds": 1,
            "image_size": 1,
            "beams": 1,
            "questions_per_image": 1,
        }.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise BadInput(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
        goals.parse_limits(self.under)
        goals.parse_objectives(self.objective)
        if spending_limit.parse(self.allowance).trials is not None and self.trials is not None:
            raise BadInput(f"--budget {self.allowance} and --trials {self.trials}: give one")
        if not 0 < self.margin < 100:
            raise BadInput(f"--margin must be more than 0 and less than 100, got {self.margin:g}")
        if not 0 <= self.label_smoothing < 1:
            raise BadInput(f"--label-smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.questions_per_image > 1 and self.group_by_length:
            raise BadInput(
                f"--questions-per-image {self.questions_per_image} and --group-by-length: give one"
            )
        self.configuration()
        if self.allocate not in ALLOCATE:
            raise unknown("value of --allocate", self.allocate, list(ALLOCATE))
        if self.precision not in PRECISIONS:
            raise unknown("value of --precision", self.precision, PRECISIONS)
        space = spaces.load(self.space)
        self.workload.check()
        for other in self.others.values():
            other.check()
        if set(self.others) & set(self.data.split(",")):
            raise BadInput(f"--ood {self.ood} names a dataset that --data {self.data} trains on")
        least = len(space.arms)
        if self.budget(space).trials < least:
            raise BadInput(
                f"{self.budget(space).trials} trials are too few: space {self.space!r} has {least} "
                f"arms ({', '.join(space.arms)}), and each needs a trial"
            )
        return space

    @property
    def timed(self) -> str:
        """The value of ``--budget`` if it limits time; empty if trials are the limit."""
        return (self.allowance or "") if spending_limit.parse(self.allowance).timed else ""

    @property
    def costs_decide(self) -> bool:
        """Whether a trial's memory or seconds decide anything. Each trial then has a device to
        itself, since the costs of trials that share one cannot be told apart."""
        limited = {limit.cost for limit in goals.parse_limits(self.under)}
        return bool(
            {"peak_memory_gib", "seconds"} & (limited | {*goals.parse_objectives(self.objective)})
        )

    @property
    def regime(self) -> Regime:
        """How all trials train."""
        return Regime(
            label_smoothing=self.label_smoothing,
            questions_per_image=self.questions_per_image,
            group_by_length=self.group_by_length,
        )

    @property
    def workload(self) -> WorkloadConfig:
        """Which model is trained on which data."""
        return WorkloadConfig(
            model=self.model,
            data=self.data,
            data_root=self.data_root,
            split=self.split,
            image_size=self.image_size,
            beams=self.beams,
        )

    @property
    def others(self) -> dict[str, WorkloadConfig]:
        """Name of each dataset in ``ood`` -> its configuration. The dataset lies in the folder of
        that name in ``data_root``."""
        found = {}
        for name in self.ood.split(",") if self.ood else ():
            folder = Path(self.data_root or "") / name
            root = str(folder) if self.data_root and folder.is_dir() else None
            found[name] = replace(self.workload, data=name, data_root=root)
        return found

    def configuration(self) -> str:
        """DeepSpeed's configuration as JSON if ``deepspeed`` names a file that holds one; else
        empty.

        Raises:
            BadInput: ``deepspeed`` names neither a file nor a kind of engine, or there is no JSON
                object in the file.
        """
        if self.deepspeed in ENGINES:
            return ""
        if not Path(self.deepspeed).is_file():
            raise unknown("value of --deepspeed", self.deepspeed, (*ENGINES, "a file of your own"))
        try:
            found = json.loads(Path(self.deepspeed).read_text(encoding="utf-8"))
            content = json.dumps(found, sort_keys=True, allow_nan=False)
        except ValueError as error:
            raise BadInput(f"--deepspeed {self.deepspeed} is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise BadInput(f"--deepspeed {self.deepspeed} must hold an object, as DeepSpeed's do")
        return content

    def engine(self, *, cuda: bool, sharing: bool) -> str:
        """Kind of engine for ``trainables.engine.start.start_engine``. ``auto`` is ZeRO stage 0 for
        a trial that has a CUDA device to itself, and plain PyTorch otherwise: trials that share a
        device share forward and backward passes, which DeepSpeed cannot do."""
        if self.deepspeed != "auto":
            return self.configuration() or self.deepspeed
        return "0" if cuda and not sharing else "off"

    @property
    def engine_name(self) -> str:
        """The part of ``deepspeed`` on which trials' numbers depend. What ``auto`` resolves to
        follows from the devices, and must not change any trial."""
        given = self.configuration()
        digest = hashlib.sha256(given.encode()).hexdigest()[:12]
        return f"file {digest}" if given else "off" if self.deepspeed == "auto" else self.deepspeed

    def budget(self, space: Space) -> Budget:
        """The space's budget, with the user's values in place of its own."""
        allowed = spending_limit.parse(self.allowance)
        most = spending_limit.MOST_TRIALS if allowed.timed else None
        trials = self.trials or allowed.trials or most
        given = {"trials": trials, "max_examples": self.max_examples}
        changed = {name: value for name, value in given.items() if value is not None}
        return Budget(**asdict(space.budget) | changed)


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    partial = folder / f"{SETTINGS}.partial-{os.getpid()}"
    try:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / SETTINGS)
    except OSError:  # the disk is full, say: half a study would be in the way of a whole one
        partial.unlink(missing_ok=True)
        with suppress(OSError):  # it stays if there is more in it
            folder.rmdir()
        raise
