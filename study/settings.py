"""What the user asked for: checked at once, kept with the study, compared when it is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search_spaces.declare import Budget, Space
from study import allowance, limits, objectives, spaces
from study.paths import STUDY
from trainables.errors import BadInput, unknown
from trainables.regime import Regime
from trainables.secrecy import command_line, without_secrets
from trainables.workload import WorkloadConfig

ENGINES = ("auto", "off", "0", "1", "2", "3", "2-offload", "3-offload")
PRECISIONS = ("auto", "fp32", "bf16")
FILE = "study.json"
PROBE_BYTES = 2**16
"""That are written to see that a storage folder can be written: a study begins with less."""
ALLOCATE = {"joint": 0.0, "floor": 0.6, "equal": 1.0}
"""Share of the trials that is divided equally among the arms; the rest goes where it pays."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a study's trials and numbers, and nothing else."""

    space: str
    model: str = "tiny"
    data: str = "phantom"
    data_root: str | None = None
    split: str = "official"
    """``official``, or ``by_image``: anew, so that no image is in two splits."""
    allow_leak: bool = False
    """Run although test questions are in the training split."""
    image_size: int | None = None
    """Pixels a side; None: as the model has it."""
    beams: int | None = None
    """Of the search for an answer; None: as the model or its paper has it."""
    label_smoothing: float = 0.0
    """In training; what is compared is without."""
    questions_per_image: int = 1
    """Of training, one after another; see ``trainables.order``."""
    group_by_length: bool = False
    """In training; see ``trainables.order``."""
    ood: str | None = None
    """Datasets with commas between, never trained on, that confirmed winners are scored on too."""
    trials: int | None = None
    """Of the search; None: as many as the space suggests. The same for ``max_examples``."""
    max_examples: int | None = None
    allowance: str | None = None
    """What may be spent, as ``--budget`` has it; see ``allowance.parse``."""
    allocate: str = "floor"
    """One of ``ALLOCATE``."""
    seed: int = 0
    seeds: int = 3
    """Confirmations of each arm's best."""
    objective: str = "score"
    """What the search looks for; see ``objectives.parse``."""
    under: str | None = None
    """Costs that an arm's best must stay below; see ``limits.parse``."""
    margin: float = 1.0
    """Points by which an arm may be worse and still count as not worse; set before the study."""
    deepspeed: str = "auto"
    precision: str = "auto"

    def check(self) -> Space:
        """Look at all values, without importing anything heavy; the space they name.

        Raises:
            BadInput: one of them cannot be; see also ``spaces.load`` and ``WorkloadConfig.check``.
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
        limits.parse(self.under)
        objectives.parse(self.objective)
        if allowance.parse(self.allowance).trials is not None and self.trials is not None:
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
        """``--budget`` if it limits time; empty if the trials are the limit."""
        return (self.allowance or "") if allowance.parse(self.allowance).timed else ""

    @property
    def costs_decide(self) -> bool:
        """Whether memory or seconds of a trial decide anything: then it is to have its device to
        itself, since those of trials that share one are not told apart."""
        limited = {limit.cost for limit in limits.parse(self.under)}
        return bool(
            {"peak_memory_gib", "seconds"} & (limited | {*objectives.parse(self.objective)})
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
        """Which model on which data."""
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
        """Each dataset of ``ood`` by name; it lies in the folder of its name in ``data_root``."""
        found = {}
        for name in self.ood.split(",") if self.ood else ():
            folder = Path(self.data_root or "") / name
            root = str(folder) if self.data_root and folder.is_dir() else None
            found[name] = replace(self.workload, data=name, data_root=root)
        return found

    def configuration(self) -> str:
        """DeepSpeed's, as JSON, if ``deepspeed`` names a file that holds one; else empty.

        Raises:
            BadInput: it names neither a file nor a kind of engine, or there is no JSON in it.
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
        """What ``trainables.engine.start`` takes. ``auto`` is ZeRO 0 for a trial that has a
        CUDA device to itself; trials that share one share passes too, which DeepSpeed cannot."""
        if self.deepspeed != "auto":
            return self.configuration() or self.deepspeed
        return "0" if cuda and not sharing else "off"

    @property
    def engine_name(self) -> str:
        """What trials' numbers depend on of it. What ``auto`` comes to follows from the devices,
        and must not change any trial."""
        given = self.configuration()
        digest = hashlib.sha256(given.encode()).hexdigest()[:12]
        return f"file {digest}" if given else "off" if self.deepspeed == "auto" else self.deepspeed

    def budget(self, space: Space) -> Budget:
        """The space's budget with what the user set."""
        allowed = allowance.parse(self.allowance)
        most = allowance.MOST_TRIALS if allowed.timed else None
        trials = self.trials or allowed.trials or most
        given = {"trials": trials, "max_examples": self.max_examples}
        changed = {name: value for name, value in given.items() if value is not None}
        return Budget(**asdict(space.budget) | changed)


def agree(storage: Path, name: str, settings: Settings, space: Space) -> None:
    """See that a study of this name can be begun, or was begun with the same settings.

    Raises:
        BadInput: no permission, a bad name, or other settings.
    """
    if not STUDY.fullmatch(name):
        raise BadInput(f"--name {name!r} must be letters, digits, '.', '_' and '-', at most 100")
    try:
        storage.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=storage) as probe:
            probe.write(bytes(PROBE_BYTES))
        file = storage / name / FILE
        begun = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    except OSError as error:
        raise BadInput(f"cannot write to --storage {storage}: {error.strerror}") from None
    if begun is None:
        return
    budget = asdict(settings.budget(space))
    if begun["arms"] != _arms(space) or begun.get("budget", budget) != budget:
        raise BadInput(f"space {settings.space!r} has changed since study {name!r} began")
    for key, value in asdict(settings).items():
        # A study that is older than a setting ran as its default says.
        was = begun["settings"].get(key, getattr(Settings, key, None))
        if was != value:
            raise BadInput(
                f"study {name!r} was begun with {key}={was!r}, not {value!r}; "
                f"go on with --resume {name}, or give another --name"
            )


def open_folder(
    storage: Path,
    name: str,
    settings: Settings,
    space: Space,
    *,
    run: Collection[str],
    base: Mapping[str, str],
) -> Path:
    """The folder of a study that ``agree`` found nothing against. What is written there when it
    begins stays: who it is among all studies (``identity``), its settings, its command, the time,
    the arms that are run, of those of its space, and what its numbers depend on (``base``).

    Raises:
        BadInput: the study was begun on another base, or with other arms.
        OSError: it cannot be written; then nothing of it is there.
    """
    folder = storage / name
    folder.mkdir(exist_ok=True)
    if not (folder / FILE).exists():
        content = {
            "version": 1,
            "identity": uuid.uuid4().hex,
            "settings": asdict(settings),
            "arms": _arms(space),
            "run": sorted(run),
            "budget": asdict(settings.budget(space)),
            "base": dict(base),
            "command": command_line("study.launch", sys.argv[1:]),
            "begun": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        _write(folder, content)
    begun = json.loads((folder / FILE).read_text(encoding="utf-8"))
    command = without_secrets(begun["command"])
    if begun["command"] != command:  # a study that is older than this
        begun["command"] = command
        _write(folder, begun)
    now = {"arms": ", ".join(sorted(run)), **base}
    for key, value in now.items():
        was = ", ".join(begun.get("run", sorted(run))) if key == "arms" else begun["base"][key]
        if was != value:
            raise BadInput(
                f"study {name!r} was begun with {key} {was}, but here it is {value}; "
                "go on where it began, or begin another study"
            )
    return folder


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    partial = folder / f"{FILE}.partial-{os.getpid()}"
    try:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / FILE)
    except OSError:  # the disk is full, say: half a study would be in the way of a whole one
        partial.unlink(missing_ok=True)
        with suppress(OSError):  # it stays if there is more in it
            folder.rmdir()
        raise


def identity(folder: Path) -> str:
    """Who a study is, whatever other studies are called; empty of one that is older than this."""
    begun = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return str(begun.get("identity", ""))


def read(storage: Path, name: str) -> Settings:
    """The settings of a study that was begun.

    Raises:
        BadInput: there is none of that name.
    """
    file = storage / name / FILE
    if not (STUDY.fullmatch(name) and file.is_file()):
        raise unknown("study", name, [path.parent.name for path in storage.glob(f"*/{FILE}")])
    return Settings(**json.loads(file.read_text(encoding="utf-8"))["settings"])


def precision(storage: Path, name: str, settings: Settings) -> str:
    """What trials compute in; ``auto``: as the devices do it best. A study goes on as it began,
    also where other devices are."""
    file = storage / name / FILE
    if settings.precision != "auto" or not file.is_file():
        return settings.precision
    return str(json.loads(file.read_text(encoding="utf-8"))["base"]["precision"])


def free_name(storage: Path, settings: Settings) -> str:
    """``<space>-<data>-<number>``, the first number that is free."""
    stem = f"{Path(settings.space).stem}-{settings.data.replace(',', '-')}"
    taken = {path.name for path in storage.glob(f"{stem}-*")} if storage.is_dir() else set()
    return next(n for n in (f"{stem}-{i:03d}" for i in range(1, 10**6)) if n not in taken)


def _arms(space: Space) -> dict[str, Any]:
    """The arms as plain values, to notice a change of the space's file."""
    return {
        name: {
            "lr": repr(arm.lr),
            **{
                slot: [ranges.name, {k: repr(v) for k, v in sorted(ranges.settings.items())}]
                for slot, ranges in arm.slots.items()
            },
        }
        for name, arm in space.arms.items()
    }
