"""Definition of a study: what the user asked, parsed and checked once, before anything heavy is
imported."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from search_spaces.declare import Budget, Space
from study.config import goals, search_methods, setting_checks, spaces, spending_limit
from study.config.begun_study import BegunStudy, arms_plain, space_as_begun
from study.config.budget import TIMES_IF_COLLAPSED, TIMES_IF_DIVERGED
from study.config.goals import Limit
from study.config.settings import ENGINES, Settings
from study.config.space_changes.narrowing import compared_against, narrow
from study.config.space_changes.same_values import distinct
from study.config.spending_limit import SpendingLimit
from study.trials.searches import MARK, searched_as
from study.trials.text import count_text
from trainables.engine.deepspeed_config import (
    divides_optimizer,
    partitions_weights,
    zero_stage,
)
from trainables.engine.training_settings import UNDIVIDED, TrainingSettings
from trainables.errors import BadInput, unknown
from trainables.models.common.quantisation import BaseBits
from trainables.stored_json import parse_text
from trainables.training.regime import Regime
from trainables.workload import WorkloadConfig

OLDEST_TRIALS = {
    "intrinsic": 144,
    "lora_placement": 96,
    "mile": 138,
    "optimizer": 72,
    "peft_methods": 132,
    "per_slot": 60,
}
"""Space -> trials of its oldest studies, in whose ``study.json`` there is no budget."""
OLDEST_TRIALS_OF_OTHERS = 24
"""Trials of the oldest studies of other spaces."""


@dataclass(frozen=True, kw_only=True)
class StudyDefinition:
    """A study as its settings define it. Everything but ``study.json`` reads this, and nothing
    reads the texts of the settings again."""

    settings: Settings
    space: Space
    budget: Budget
    """Budget of the space, with the user's values in place of its own; see also ``with_data``."""
    spending_limit: SpendingLimit
    objectives: tuple[str, ...]
    """Costs that the search minimises beside the validation loss; see ``study.config.goals``."""
    limits: tuple[Limit, ...]
    """Upper limits on what an arm's best may cost."""
    workload: WorkloadConfig
    """Model, and data to train it on."""
    ood_workloads: Mapping[str, WorkloadConfig]
    """Name -> the model, with a dataset that confirmed trials are only scored on."""
    regime: Regime
    """Training settings that all trials share."""
    engine: str | None
    """Engine that the user chose, in a form that ``trainables.engine.start.start_engine`` takes: a
    kind, or DeepSpeed's configuration as JSON. None: it follows from the devices."""
    precision: str
    """Precision in which trials compute; ``auto`` leaves it to the devices."""
    allocate: str
    """Division of the trials among arms: a key of ``study.config.budget.ALLOCATE``."""
    tuned_to: float
    """Points that an arm may still gain when it counts as tuned, if ``allocate`` is ``tuned``."""
    search: str
    """Searcher: a file of ``study/search/searchers``, or a sampler of Optuna."""
    stop: str
    """Rule of early stopping: a file of ``study/search/stoppers``."""
    times_if_diverged: int = TIMES_IF_DIVERGED
    """Multiple of the seeds with which an arm is confirmed of which a search trial diverged; see
    ``study.search.unsteady_arms``."""
    times_if_collapsed: int = TIMES_IF_COLLAPSED
    """Multiple of the seeds for an arm of which a search trial collapsed."""
    begun_model: str = ""
    """Digest of the model with which the study began; empty for a study that is new."""

    @classmethod
    def parse(cls, settings: Settings, begun: BegunStudy | None = None) -> StudyDefinition:
        """Parse all settings without importing anything heavy.

        A study that was ``begun`` goes on as it began, whatever the project's choices are by now:
        with its arms (unless its space is a file of the user's own, which must not have changed),
        budget, searcher, early stopping, division of trials and rule of confirmation, in its
        precision, and with a digest of the version that its model had then.

        Raises:
            BadInput: a value is impossible; see also ``spaces.load`` and ``WorkloadConfig.check``.
        """
        setting_checks.check(settings)
        limits = goals.parse_limits(settings.under)
        objectives = goals.parse_objectives(settings.objective)
        spending = spending_limit.parse(settings.allowance)
        if spending.trials is not None and settings.trials is not None:
            raise BadInput(
                f"--budget {settings.allowance} and --trials {settings.trials}: give one"
            )
        allocate = setting_checks.division(settings, objectives, limits)
        regime = setting_checks.regime(settings)
        engine = _engine(settings.deepspeed)
        search = search_methods.parse_searcher(settings.search, objectives)
        stop = search_methods.STOP if settings.stop == search_methods.AUTO else settings.stop
        search_methods.check_stopper(stop)
        space = _space(settings, begun)
        search_methods.check_space(search, space)
        _check_training(space, engine, settings.deepspeed)
        workload, ood_workloads = _workloads(settings, spaces.base_bits(settings.base_bits, space))
        if begun is None or begun.arms != arms_plain(space):
            of_study = {"label_smoothing": regime.label_smoothing, **asdict(workload.asking)}
            declared = several(spaces.load(settings.space), settings.times_searched)
            space = distinct(space, declared, of_study)
        if workload.base_bits is not None and engine is not None and partitions_weights(engine):
            raise BadInput(
                f"--deepspeed {settings.deepspeed} divides the base's weights among devices "
                f"(ZeRO-3), which --base-bits {settings.base_bits} keeps whole on each: give one"
            )
        parsed = cls(
            settings=settings,
            space=space,
            budget=_budget(settings, space, spending, begun),
            spending_limit=spending,
            objectives=objectives,
            limits=limits,
            workload=workload,
            ood_workloads=ood_workloads,
            regime=regime,
            engine=engine,
            precision=settings.precision,
            allocate=allocate,
            tuned_to=settings.margin if settings.tuned_to is None else settings.tuned_to,
            search=search,
            stop=stop,
        )
        return parsed if begun is None else parsed._as_begun(begun)

    def _as_begun(self, begun: BegunStudy) -> StudyDefinition:
        """The definition with what the study was ``begun`` with in place of today's choices."""
        precision = self.precision
        if precision == "auto":
            precision = begun.base.get("precision", precision)
        allocate = begun.allocate or begun.settings.allocate
        return replace(
            self,
            precision=precision,
            begun_model=begun.base.get("model", ""),
            allocate="floor" if allocate == search_methods.AUTO else allocate,
            search=begun.search,
            stop=begun.stop,
            times_if_diverged=begun.times_if_diverged,
            times_if_collapsed=begun.times_if_collapsed,
        )

    def with_data(self, questions: int) -> StudyDefinition:
        """The definition for a training split of so many questions, which epochs count."""
        if self.budget.epochs is None:
            return self
        examples = math.ceil(self.budget.epochs * questions)
        try:
            return replace(self, budget=replace(self.budget, max_examples=examples))
        except ValueError as error:
            line = f"{self.budget.epochs:g} epochs of {questions:,} questions: {error}"
            raise BadInput(line) from None

    @property
    def times_if_unsteady(self) -> int:
        """Multiple of the seeds that an arm may have at most."""
        return max(self.times_if_diverged, self.times_if_collapsed)

    @property
    def time_limit(self) -> str:
        """Value of ``--budget`` if it limits time; empty if trials are the limit."""
        return (self.settings.allowance or "") if self.spending_limit.timed else ""

    @property
    def costs_decide(self) -> bool:
        """Whether a trial's memory or seconds decide anything. Each trial then has a device to
        itself, since the costs of trials that share one cannot be told apart."""
        limited = {limit.cost for limit in self.limits}
        return bool({"peak_memory_gib", "seconds"} & (limited | {*self.objectives}))

    def engine_on(self, *, cuda: bool, sharing: bool) -> str:
        """Engine of a trial, in a form that ``trainables.engine.start.start_engine`` takes. Unless
        the user chose one, it is ZeRO stage 0 for a trial that has a CUDA device to itself, and
        plain PyTorch otherwise: trials that share a device share forward and backward passes,
        which DeepSpeed cannot do."""
        return self.engine or ("0" if cuda and not sharing else "off")

    @property
    def engine_name(self) -> str:
        """The part of the choice of an engine on which trials' numbers depend. Which engine the
        devices suggest must not change any trial."""
        if self._configuration:
            return f"file {hashlib.sha256(self._configuration.encode()).hexdigest()[:12]}"
        return self.engine or "off"

    def check_engine(self) -> None:
        """Check the user's own DeepSpeed configuration, if there is one. Importing DeepSpeed takes
        seconds.

        Raises:
            BadInput: DeepSpeed refuses the configuration.
        """
        if self._configuration:
            from trainables.engine.deepspeed_engine import check_configuration

            try:
                check_configuration(self._configuration)
            except BadInput as error:
                raise BadInput(f"--deepspeed {self.settings.deepspeed}: {error}") from None

    @property
    def _configuration(self) -> str:
        """The user's own DeepSpeed configuration as JSON; empty if there is none."""
        return self.engine if self.engine and self.engine not in ENGINES else ""


def _space(settings: Settings, begun: BegunStudy | None) -> Space:
    """The space as the user narrowed it or, of a study that was ``begun``, as it was then."""
    space = spaces.load(settings.space)
    if begun is not None and not settings.space.endswith(".py"):
        had = space_as_begun(begun, space)
        if had is not None:
            return had
    space = compared_against(space, settings.against)
    space = narrow(space, settings.arm, settings.set or ())
    if settings.against is not None and settings.against not in space.arms:
        raise BadInput(
            f"--arm {settings.arm} leaves out {settings.against}, with which --against compares "
            "the others; name it too, or leave --against away"
        )
    return several(space, settings.times_searched)


def several(space: Space, searches: int) -> Space:
    """The space in which each arm is searched so many times; see ``study.trials.searches``.

    Raises:
        BadInput: the name of an arm would be that of another's search, or too long.
    """
    if searches == 1:
        return space
    for name in space.arms:
        if MARK in name:
            raise BadInput(f"--searches or --splits needs names without {MARK!r}, got arm {name!r}")
    arms = {
        searched_as(name, search): arm
        for search in range(searches)
        for name, arm in space.arms.items()
    }
    try:
        budget = replace(space.budget, trials=searches * space.budget.trials)
        return replace(space, arms=arms, budget=budget, training=None)
    except ValueError as error:
        raise BadInput(f"{searches} searches of each arm: {error}") from None


def _check_training(space: Space, engine: str | None, deepspeed: str) -> None:
    """Check that the arms can be trained as they ask, by the engine that the user chose.

    Raises:
        BadInput: they cannot, or an optimizer's package is not installed.
    """
    for name, arm in space.arms.items():
        for optimizer in spaces.optimizers(arm):
            TrainingSettings(optimizer=optimizer).check_installed()
            if engine is not None and divides_optimizer(engine) and optimizer in UNDIVIDED:
                raise BadInput(
                    f"--deepspeed {deepspeed} divides what is trained, which optimizer "
                    f"{optimizer!r} of arm {name!r} needs undivided: give --deepspeed off"
                )
        if engine is not None and engine not in ENGINES and "max_grad_norm" in arm.training:
            raise BadInput(
                f"--deepspeed {deepspeed} decides itself how gradients are clipped, but arm "
                f"{name!r} names max_grad_norm: give one"
            )


def _engine(deepspeed: str) -> str | None:
    """Value of ``StudyDefinition.engine``. If ``deepspeed`` names a file, it is read here.

    Raises:
        BadInput: ``deepspeed`` names neither a file nor a kind of engine, or there is no JSON
            object in the file.
    """
    if deepspeed in ENGINES:
        return None if deepspeed == "auto" else deepspeed
    if not Path(deepspeed).is_file():
        raise unknown("value of --deepspeed", deepspeed, (*ENGINES, "a file of your own"))
    try:
        configuration = parse_text(Path(deepspeed).read_text(encoding="utf-8"))
        content = json.dumps(configuration, sort_keys=True, allow_nan=False)
    except (RecursionError, ValueError) as error:
        raise BadInput(f"--deepspeed {deepspeed} is no JSON: {error}") from None
    except OSError as error:
        raise BadInput(f"--deepspeed {deepspeed} can't be read ({error.strerror})") from None
    if not isinstance(configuration, dict):
        raise BadInput(f"--deepspeed {deepspeed} must hold an object, as DeepSpeed's do")
    try:
        zero_stage(configuration)
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise BadInput(
            f"--deepspeed {deepspeed}: zero_optimization must be an object whose stage is a number"
        ) from None
    return content


def _workloads(
    settings: Settings, base_bits: BaseBits | None
) -> tuple[WorkloadConfig, dict[str, WorkloadConfig]]:
    """Workload to train, and by name those to score on only. The dataset of one of these lies in
    the folder of its name in ``data_root``."""
    workload = WorkloadConfig(
        model=settings.model,
        data=settings.data,
        data_root=settings.data_root,
        split=settings.split,
        image_size=settings.image_size,
        beams=settings.beams,
        prompt=settings.prompt,
        system=settings.system,
        base_bits=base_bits,
    )
    workload.check()
    ood_workloads = {}
    for name in settings.ood.split(",") if settings.ood else ():
        folder = Path(settings.data_root or "") / name
        root = str(folder) if settings.data_root and folder.is_dir() else None
        ood_workloads[name] = replace(workload, data=name, data_root=root)
    for other in ood_workloads.values():
        other.check()
    if set(ood_workloads) & set(settings.data.split(",")):
        raise BadInput(
            f"--ood {settings.ood} names a dataset that --data {settings.data} trains on"
        )
    return workload, ood_workloads


def _budget(
    settings: Settings, space: Space, spending: SpendingLimit, begun: BegunStudy | None
) -> Budget:
    """Budget of the space, with the user's values in place of its own; of a study that was
    ``begun``, the budget that it had. If its space is a file of the user's own, only what the file
    leaves open is taken from there.

    Raises:
        BadInput: there are fewer trials than arms.
    """
    had = begun.budget if begun is not None else None
    own_file = settings.space.endswith(".py")
    if had is not None and not own_file:
        return had
    most = spending_limit.MOST_TRIALS if spending.timed else None
    given = {
        "trials": settings.trials or spending.trials or most or space.budget.trials,
        "max_examples": settings.max_examples,
        "epochs": settings.epochs,
    }
    changed: dict[str, float | None] = {n: value for n, value in given.items() if value is not None}
    if settings.max_examples is not None:
        changed["epochs"] = None
    try:
        budget = Budget(**asdict(space.budget) | changed)
    except ValueError as error:
        raise BadInput(f"--budget {settings.allowance}: {error}") from None
    if had is not None and budget.epochs is not None:
        # Studies that began before epochs were a part of the budget have noted no epochs there.
        epochs = budget.epochs if settings.epochs is None else had.epochs
        budget = replace(budget, max_examples=had.max_examples, epochs=epochs)
    if not budget.trials:
        oldest = OLDEST_TRIALS.get(settings.space, OLDEST_TRIALS_OF_OTHERS)
        trials = spaces.default_trials(space) if begun is None else oldest
        budget = replace(budget, trials=had.trials if had is not None else trials)
    if budget.trials < len(space.arms):
        raise BadInput(
            f"{count_text(budget.trials, 'trial')} {'is' if budget.trials == 1 else 'are'} too "
            f"few: space {settings.space!r} has {len(space.arms)} arms ({', '.join(space.arms)}), "
            "and each needs a trial"
        )
    return budget
