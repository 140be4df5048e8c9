"""The plan of a study, shown before it runs: arms, what each trains, rungs, trials, time."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.text import Text

from search_spaces.declare import Space
from study.config import search_methods, spaces
from study.config.budget import RISE, floor, levels
from study.config.checked_data import CheckedData
from study.config.definition import StudyDefinition
from study.config.space_changes import narrowing
from study.config.spaces import points
from study.planning.detectable import StudySize
from study.planning.foretold_time import QuestionCounts, TimeForecast
from study.planning.placement import Infeasible, Placement
from study.planning.plan_tables import arms_table, bits_text, cost_of_splits, without_effect
from study.storage.study_folder import ENGINES
from study.trials.spec import Kind, off_default
from study.trials.text import count_text, short
from trainables.data.common.wording import BRIEF
from trainables.devices.kinds import SHARED, VARIABLE
from trainables.engine import deepspeed_config
from trainables.errors import BadInput
from trainables.models.common.model_identity import VERSION_2
from trainables.training.regime import CHOOSE

if TYPE_CHECKING:
    from study.planning.arm_placements import PlacedArms
    from study.planning.workload_profile import WorkloadProfile

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """Everything that is decided before the first trial."""

    name: str
    """Name of the study."""
    definition: StudyDefinition
    data: CheckedData
    profile: WorkloadProfile
    majority: Mapping[str, float]
    """Scores, in percent, of always giving the most frequent answer."""
    precision: str
    """Precision in which trials compute: ``fp32`` or ``bf16``."""
    concurrency: int
    """Trials at a time."""
    space: Space
    """Space of the study, with those of its arms that fit somewhere."""
    placements: Mapping[str, Placement]
    """Arm -> placement of its trials."""
    untuned: Placement | None
    """Placement of the untuned model, which only answers; None if it fits nowhere."""
    corrections: Mapping[str, float]
    """Arm -> ratio of the memory that three steps took to what was predicted of them; empty if none
    were taken."""
    nowhere: Mapping[str, Infeasible]
    """Name of an arm, or of the untuned model, that fits on no device and is not run -> why."""
    begun: float | None = None
    """Seconds from the start of the command to this plan; None in a dry run, which starts
    nothing."""

    @property
    def model_digest(self) -> str:
        """Digest of the model, in the version with which the study began."""
        begun, profile = self.definition.begun_model, self.profile
        old = begun and not begun.startswith(VERSION_2)
        return profile.digest_1 if old else profile.digest

    @property
    def engines(self) -> dict[str, dict[str, Any]]:
        """DeepSpeed's configuration of each arm that has one, at typical values."""
        found = {
            arm: deepspeed_config.configuration(
                placement.deepspeed,
                self.profile.sizes[arm],
                pinned=self.profile.device in SHARED,
                max_grad_norm=spaces.typical_training(self.space.arms[arm]).max_grad_norm,
            )
            for arm, placement in self.placements.items()
        }
        return {arm: configuration for arm, configuration in found.items() if configuration}

    def write(self, folder: Path) -> None:
        """Write what is too long to be shown, DeepSpeed's configurations, into the study's
        folder."""
        if self.engines:
            content = json.dumps(self.engines, indent=2) + "\n"
            (folder / ENGINES).write_text(content, encoding="utf-8")

    @property
    def trials(self) -> int:
        """Trials of the search: as many as are asked for, or all points that there are."""
        return int(min(self.definition.budget.trials, sum(self._points.values())))

    @property
    def _tuned_to(self) -> str:
        """What an arm may still gain when it counts as tuned."""
        to = self.definition.tuned_to
        return f"{to:g} point{'s' * (to != 1)}"

    @property
    def _points(self) -> dict[str, float]:
        return {name: points(arm) for name, arm in self.space.arms.items()}

    @property
    def forecast(self) -> TimeForecast:
        """What the study takes. It is not measured if no step was timed, or where trials exchange
        weights or gradients: steps are timed on one device that has them all."""
        kinds, profile, settings = self.placements.values(), self.profile, self.definition.settings
        partitions = deepspeed_config.partitions_weights
        exchanging = any(p.devices > 1 or partitions(p.deepspeed) for p in kinds)
        measured = bool(profile.steps) and not exchanging
        steps = profile.steps if measured else TimeForecast.unmeasured(self.space.arms)
        data = self.data.dataset
        sharing = max(placement.sharing for placement in kinds)
        return TimeForecast(
            steps={arm: steps[arm] for arm in self.space.arms},
            measured=measured,
            budget=self.definition.budget,
            trials=self.trials,
            stop=self.definition.stop,
            seeds=settings.seeds,
            times_if_unsteady=self.definition.times_if_unsteady,
            untuned=(self.untuned is not None) * (1 + self.asks_briefly) * settings.splits,
            questions=QuestionCounts(
                train=len(data.train),
                validation=len(data.validation),
                test=len(data.test),
                ood=sum(len(other.test) for other in self.data.ood.values()),
            ),
            devices=max(self.concurrency // sharing, 1),
            begun=self.begun,
        )

    @property
    def asks_briefly(self) -> bool:
        """Whether the untuned model is asked to answer with a word or phrase, too."""
        return self.profile.asked_briefly and self.definition.settings.prompt != BRIEF

    def show(self, console: Console, folder: Path | None = None) -> None:
        """Print the plan. DeepSpeed's configurations are printed in short if ``folder`` is given,
        where ``write`` puts them, and in full if there is to be no folder."""
        from trainables.measures.common.scores import shown_columns

        profile, data = self.profile, self.data.dataset
        settings, budget = self.definition.settings, self.definition.budget
        stops, time_limit = levels(budget), self.definition.time_limit
        splits = ", ".join(f"{s} {len(examples):,}" for s, examples in data.splits().items())
        chance = self.majority
        console.print(Text(self.space.question, style="bold"))
        console.print(f"  study    {self.name}")
        if narrowed := narrowing.options_text(settings.arm, settings.set):
            console.print(f"  space    {settings.space}, narrowed by {narrowed}")
        console.print(
            f"  model    {profile.model}, {profile.parameters:,} parameters, "
            f"{profile.image_size} px"
        )
        if (bits := self.definition.workload.base_bits) is not None:
            shown = bits_text(profile.slot_bits, bits, self.definition.space)
            console.print(f"  base     {shown}")
        images = count_text(profile.images, "image")
        console.print(f"  data     {data.name}: {splits} questions, {images}")
        for name, text in off_default(self.definition.workload.asking).items():
            console.print(f"  {name:<9}{short(text)}")
        beams = "greedily" if profile.beams == 1 else f"with {profile.beams} beams"
        console.print(
            f"  answers  at most {profile.answer_tokens} tokens, {profile.why_answer_tokens}, "
            f"written {beams}"
            + "; of options the likeliest is chosen"
            * (settings.choose != CHOOSE[0])
        )
        console.print(
            f"  chance   always the most frequent answer scores {chance['overall']:.1f}% ("
            + ", ".join(
                f"{title.removesuffix(' %')} {chance[name]:.1f}"
                for name, title in shown_columns(chance).items()
                if name != "overall" and not math.isnan(chance[name])
            )
            + ")"
        )
        for finding in self.data.audit.findings:
            if finding.severity != "note":
                console.print(Text(f"           {finding.text}", style="yellow"))
        if asked := profile.with_image_words:
            told = (
                f"{count_text(asked, 'question')} of all splits: a word that stands for the "
                "image in the model's prompt is left out, since the image is put in by itself"
            )
            console.print(Text(f"           {told}", style="yellow"))
        if time_limit:
            trials = f"until the confirmation needs what is left of --budget {time_limit}"
            if self.definition.allocate == "tuned":
                trials += f", or no arm may gain more than {self._tuned_to}"
        else:
            least = floor(budget.trials, len(self.space.arms), self.definition.allocate)
            fewer = [f"{arm} {count:g}" for arm, count in self._points.items() if count < least]
            trials = f"{count_text(self.trials, 'trial')}, at least {least} an arm"
            if self.definition.allocate == "tuned":
                trials = (
                    f"at most {count_text(self.trials, 'trial')}, until no arm may gain more than "
                    f"{self._tuned_to}"
                )
            trials += f" (all there are of {', '.join(fewer)})" * bool(fewer)
        rungs = ", ".join(f"{stop:,}" for stop in stops[:-1])
        if rungs and any(spaces.BATCH_SIZE in arm.training for arm in self.space.arms.values()):
            rungs += " (rounded up to whole batches)"
        stop, share = (
            self.definition.stop,
            search_methods.passing(self.definition.stop, budget.reduction),
        )
        examples = f"{stops[-1]:,} examples ({stops[-1] / len(data.train):.3g} epochs)"
        early = f"rungs at {rungs} of {examples}, where about {share:.0%} go on ({stop})"
        whole = f"{examples} each, none is stopped early"
        console.print(
            f"  search   {trials}, drawn by {self.definition.search}; "
            f"{early if rungs and share < 1 else whole}"
        )
        times = settings.times_searched
        console.print(
            f"  confirm  {count_text(len(self.space.arms) // times, 'arm')} x "
            + f"{times} {'splits' if settings.splits > 1 else 'searches'} x " * (times > 1)
            + f"{count_text(settings.seeds, 'seed')} = "
            f"{count_text(len(self.space.arms) * settings.seeds, 'training')}, scored on test once"
        )
        if (more := self.definition.times_if_unsteady) > 1:
            collapses = (
                f" or collapses (its validation loss rises to over {RISE:g} times what it was)"
                if self.definition.times_if_collapsed > 1
                else ""
            )
            several = "split" if settings.splits > 1 else "search"
            each = f" a {several}" if times > 1 else ""
            console.print(
                f"           {more * settings.seeds} seeds{each}, by rule, of an arm of which a "
                f"search trial diverges{collapses} at a learning rate no larger than that of its "
                "best trial"
            )
        size = StudySize(
            questions=len(data.test),
            images=len({example.unit for example in data.test}),
            arms=len(self.space.arms) // times,
            seeds=settings.seeds,
            searches=settings.searches,
            splits=settings.splits,
            tested_per_trained=len(data.test) / len(data.train),
            against=self.space.against is not None,
        )
        if self.space.against is not None and size.arms > 1:
            console.print(
                f"  compare  each arm with {self.space.against} alone: "
                f"{count_text(size.tests, 'test')} to correct for"
            )
        if settings.splits > 1:
            named = settings.trials or self.definition.spending_limit.trials
            cost = cost_of_splits(settings.splits, named or self.space.budget.trials, time_limit)
            console.print(
                f"  splits   {settings.splits} divisions of the data by image, with "
                f"{' / '.join(f'{len(data.test):,}' for data in self.data.splits)} test questions; "
                f"each arm is searched and confirmed in each: {cost}"
            )
        if size.arms > 1:
            console.print(f"  claims   {size.claim}")
        console.print(f"  shows    {size.text}\n           {size.supposing}")
        console.print(
            f"  compute  {self.concurrency} at a time on {profile.device}, {self.precision}"
        )
        if (forecast := self.forecast).measured and not time_limit:
            total = forecast.whole
            parts = [f"{name} {_duration(part.about)}" for name, part in forecast.parts.items()]
            console.print(
                f"  time     about {_duration(total.about)}, at most {_duration(total.most)} "
                f"({', '.join(parts)})"
            )
        if profile.device not in ("cpu", *SHARED):
            console.print(
                f"           nobody has tried {profile.device}; {VARIABLE}=cpu computes on "
                "processors"
            )
        if self.corrections:
            found = self.corrections.values()
            console.print(
                f"  memory   predicted, then corrected by three steps of each arm on a device: "
                f"{min(found):.2f} to {max(found):.2f} of what was predicted"
            )
        for placement, placed in _by_value(self.placements):
            console.print(f"  devices  {self._whose(placed)}: {placement.shown}")
        if self.untuned is not None and self.untuned not in self.placements.values():
            console.print(f"  devices  {Kind.UNTUNED}: {self.untuned.shown}")
        for engine, placed in _by_value(self.engines):
            console.print(f"  engine   {self._whose(placed)}: {deepspeed_config.summary(engine)}")
            if folder is None:
                console.print(f"           DeepSpeed's configuration: {json.dumps(engine)}")
        if folder is not None and self.engines:
            console.print(f"           DeepSpeed's configuration is in {folder / ENGINES}")
        for arm, lacking in self.nowhere.items():
            console.print(Text("  not run", style="red"), f" {arm}: {lacking.reason}")
        console.print()
        console.print(arms_table(self.space, {arm: profile.arms[arm] for arm in self.space.arms}))
        for line in without_effect(
            self.space, [arm for arm in profile.vectors_alone if arm in self.space.arms]
        ):
            console.print(Text(line, style="yellow"))
        console.print()

    def _whose(self, arms: Collection[str]) -> str:
        return "all arms" if len(arms) == len(self.profile.arms) else ", ".join(arms)


def _by_value(of: Mapping[str, Value]) -> list[tuple[Value, list[str]]]:
    """Each value, with the arms that have it."""
    grouped: list[tuple[Value, list[str]]] = []
    for arm, value in of.items():
        arms = next((arms for other, arms in grouped if other == value), None)
        if arms is None:
            grouped.append((value, [arm]))
        else:
            arms.append(arm)
    return grouped


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes:.2g} min" if minutes < 90 else f"{minutes / 60:.2g} h"


def plan_study(
    name: str,
    definition: StudyDefinition,
    data: CheckedData,
    placed: PlacedArms,
    *,
    precision: str,
    concurrency: int,
    begun: float | None = None,
) -> StudyPlan:
    """Put together the plan of a study, of the arms that fit somewhere. ``begun`` is the time in
    seconds since the command was started, if the study is to run.

    Raises:
        BadInput: the arm with which the others are compared fits nowhere.
    """
    from trainables.measures.common.baselines import majority_baseline

    space, by_arm = definition.space, placed.placements.by_arm
    if space.against is not None and space.against in placed.nowhere:
        raise BadInput(
            f"{space.against}, with which the other arms are compared, cannot be run: "
            f"{placed.nowhere[space.against].reason}; name another one by --against"
        )
    return StudyPlan(
        name=name,
        definition=definition,
        data=data,
        profile=placed.profile,
        majority=majority_baseline(data.dataset.train, data.dataset.test),
        precision=precision,
        concurrency=concurrency,
        space=replace(space, arms={arm: space.arms[arm] for arm in by_arm}),
        placements=by_arm,
        untuned=placed.placements.untuned,
        corrections=placed.placements.corrections,
        nowhere=placed.nowhere,
        begun=begun,
    )
