"""Decides which trial runs next and which goes on: first the search, then the confirmation.

The search is one joint space of all arms: the arm is a categorical parameter, and the others are
conditional on it. The next trial goes to the arm that may still gain most (``arm_gains.py``),
unless ``--allocate`` divides them otherwise: equally, or a part equally and the rest to the arms
that do best, by TPE. An arm's points are drawn by a searcher (``searchers/``), and a stopper
(``stoppers/``) judges its rungs. Nothing here knows of Ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.declare import Budget, Range, Space
from study.config import search_methods, spaces
from study.config.budget import floor, levels, reached
from study.config.goals import Limit
from study.config.spaces import points
from study.search.arm_gains import LEAST, ArmGains
from study.search.best_trials import BestTrials
from study.search.journal import StudyJournal
from study.search.sampler import Sampler, groups
from study.search.spending import SpendingTracker
from study.search.trial_of_point import trial_of_point
from study.search.unsteady_arms import UnsteadyArms
from study.trials.callback import StudyCallback
from study.trials.record import Outcome, Rung, TrialEnd, TrialRecord
from study.trials.searches import SEEDS, arm_of, search_of
from study.trials.spec import Kind, TrialSpec
from trainables.data.common.wording import BRIEF
from trainables.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class SearchRules:
    """Everything besides results that decides which trials a study runs."""

    space: Space
    budget: Budget
    slots: tuple[str, ...]
    """Slots of the model."""
    seed: int
    confirm_seeds: int
    times_if_diverged: int = 1
    """Multiple of ``confirm_seeds`` with which an arm is confirmed of which a search trial diverged
    at a learning rate no larger than its best's; see ``study.search.unsteady_arms``."""
    times_if_collapsed: int = 1
    """Multiple of the confirmations of an arm of which a search trial collapsed there."""
    searches: int = 1
    """Independent searches of each arm, which ``space`` has as arms; see
    ``study.trials.searches``."""
    splits: int = 1
    """Divisions of the data; if there are several, each search of an arm is in its own."""
    allocate: str = "floor"
    """Division of the trials among arms: a key of ``study.config.budget.ALLOCATE``."""
    tuned_to: float = 1.0
    """Points that an arm may still gain when it counts as tuned, if ``allocate`` is ``tuned``."""
    search: str = search_methods.OLDEST[0]
    """Searcher: a file of ``study/search/searchers``, or a sampler of Optuna."""
    stop: str = search_methods.OLDEST[1]
    """Rule of early stopping: a file of ``study/search/stoppers``."""
    objectives: tuple[str, ...] = ()
    """Costs that are minimised beside the loss; see ``study.config.goals``."""
    limits: tuple[Limit, ...] = ()
    """Upper limits on what an arm's best may cost."""
    untuned: bool = True
    """Whether the untuned model is scored beside the arms; not so where it fits on no device."""
    brief: bool = False
    """Whether the untuned model is also asked for a bare answer (``BRIEF``), beside the prompt of
    the arms."""
    base: str
    """Digest of what else trials' numbers depend on; see ``TrialSpec.base``."""


class StudyScheduler:
    """Draws trials, judges the rungs that they report, and knows when the study is over."""

    def __init__(
        self,
        rules: SearchRules,
        journal: StudyJournal,
        callbacks: Sequence[StudyCallback] = (),
        spending: SpendingTracker | None = None,
    ) -> None:
        """Continue from ``journal``. ``spending`` may be None if only the number of trials is
        limited."""
        self.rules, self.journal, self.spending = rules, journal, spending
        self.callbacks = callbacks if spending is None else (spending, *callbacks)
        self.rungs = levels(rules.budget)
        self.stopper = search_methods.stopper(rules.stop, rules.budget.reduction)
        self._groups = groups(rules.space)
        self._points = {name: points(arm) for name, arm in rules.space.arms.items()}
        self.gains = ArmGains(journal, self._groups, self._points, rules.seed)
        self._live: dict[str, Kind] = {}
        """Trial id -> kind, for trials that run now."""
        self._best = BestTrials(journal.records, rules.limits, self.rungs)
        self._unsteady = UnsteadyArms(rules.searches, self.rungs, journal.records.values())
        self._confirmed: tuple[dict[str, tuple[str, int]], list[TrialSpec]] | None = None
        """Arm -> id of its best trial and number of its seeds, and the confirmations that follow
        from these."""
        self._again: deque[TrialSpec] = deque()
        """Trials that ran when the study was last killed; they go on first."""
        if spending is not None:
            spending.resume(journal.seconds, journal.records.values())
        goes_on = self._judge_again()
        self._stopped = {trial for trial, on in goes_on.items() if not on}
        """Trials that were to be stopped at their last report; not all of them were."""
        for record in journal.records.values():
            if record.outcome is None:
                self._again.append(record.spec)

    @property
    def done(self) -> bool:
        """Whether nothing runs and nothing is left to run."""
        return not (self._live or self._again or self._searching or self.confirmations())

    @property
    def may_begin_more(self) -> bool:
        """Whether trials may still begin."""
        still_searching = self._searching or Kind.SEARCH in self._live.values()
        return bool(self._again or still_searching or self.confirmations())

    def next(self) -> TrialSpec | None:
        """The next trial to run; None while it must wait for running ones, or when all is done."""
        self._look_into_spending()
        record = self._go_on() or self._draw() or self._confirm()
        if record is None:
            return None
        self._live[record.spec.id] = record.spec.kind
        for callback in self.callbacks:
            callback.started(record)
        return record.spec

    def record_placement(self, trial_id: str, ran: Mapping[str, str]) -> None:
        """Record a trial's placement: devices, engine and pieces of its batch."""
        self.journal.record_placement(trial_id, ran)

    def reported(self, trial_id: str, rung: Rung) -> bool:
        """Record a trial's report; return whether the trial goes on. A report of a rung that the
        journal already has is ignored, and the trial goes on."""
        news = rung.examples_seen > self.journal.records[trial_id].examples_seen
        level = reached(self.rungs, rung.examples_seen)
        record = self.journal.rung(trial_id, rung, level=level)
        if news:
            self._best.compare(record)
            for callback in self.callbacks:
                callback.reported(record)
        self._look_into_spending()
        goes_on = self._judge(record.spec, rung) if news else True
        return goes_on and not (record.spec.kind is Kind.SEARCH and self.journal.cut_short)

    def ended(self, trial_id: str, end: TrialEnd) -> None:
        """Record the end of a trial."""
        del self._live[trial_id]
        record = self.journal.ended(trial_id, end)
        self._best.compare(record)
        self._unsteady.compare(record)
        for callback in self.callbacks:
            callback.ended(record)
        if self.spending is not None:
            self.journal.record_seconds(self.spending.seconds)

    def best(self) -> dict[str, TrialRecord]:
        """Arm -> its best search trial, in the order of the space; see ``BestTrials``."""
        found = self._best.of_arm
        return {arm: found[arm] for arm in self.rules.space.arms if arm in found}

    def seeds(self) -> dict[str, int]:
        """Arm -> number of its confirmations, by the search so far, in the order of the space."""
        rules = self.rules
        times = self._unsteady.times(
            self._best.of_arm.values(),
            if_diverged=rules.times_if_diverged,
            if_collapsed=rules.times_if_collapsed,
        )
        return {
            arm: times.get(arm_of(arm, rules.searches), 1) * rules.confirm_seeds
            for arm in rules.space.arms
        }

    def diverged_at(self) -> dict[str, float]:
        """Arm that is confirmed with more seeds -> lowest learning rate at which a search trial of
        it diverged; empty if the study's rules give no arm more."""
        if self.rules.times_if_diverged == 1:
            return {}
        return self._unsteady.diverged_at(self._best.of_arm.values())

    def collapsed_at(self) -> dict[str, float]:
        """Arm that is confirmed with more seeds -> lowest learning rate at which a search trial of
        it collapsed; empty if the study's rules give no arm more for it."""
        if self.rules.times_if_collapsed == 1:
            return {}
        return self._unsteady.collapsed_at(self._best.of_arm.values())

    def confirmations(self) -> list[TrialSpec]:
        """Confirmations that are left to run: the untuned model, and each arm's best with new
        seeds."""
        return [s for s in self._to_confirm() if s.id not in self.journal.records]

    @property
    def _searching(self) -> bool:
        """Whether the search has trials left to draw."""
        left = self.journal.draws.total() < self.rules.budget.trials and self._open
        return bool(left) and not self.journal.cut_short and not self._tuned

    @property
    def _tuned(self) -> bool:
        """Whether the search ends because no arm is expected to gain much more."""
        rules = self.rules
        return self.journal.tuned or (
            rules.allocate == "tuned" and self.gains.tuned(self._open, rules.tuned_to)
        )

    @property
    def _open(self) -> list[str]:
        """Arms that have points left which were not tried."""
        return [arm for arm in self._points if self.journal.tried[arm] < self._points[arm]]

    def _look_into_spending(self) -> None:
        """End the search if the rest of the spending limit is needed for the confirmation. Each arm
        gets a trial first."""
        tried = all(self.journal.tried[arm] for arm in self.rules.space.arms)
        if self.spending is None or not (tried and self._searching):
            return
        seeds = self.seeds()
        trained = [record for arm, record in self.best().items() for _ in range(seeds[arm])]
        if self.spending.empty(self.rungs, trained):
            self.journal.end_search()

    def _go_on(self) -> TrialRecord | None:
        """A trial that ran when the study was last stopped; None if there is none left. One that
        was told to stop at its last report, of which no end could be noted, ends now."""
        while self._again:
            record = self.journal.records[self._again.popleft().id]
            if record.spec.id not in self._stopped:
                return record
            self._live[record.spec.id] = record.spec.kind
            self.ended(record.spec.id, TrialEnd(outcome=Outcome.PRUNED))
        return None

    def _draw(self) -> TrialRecord | None:
        """A new search trial; None if the budget is spent, no arm may gain much more, or none has
        points left."""
        if not self._searching:
            return None
        search = self.journal.studies["search"]
        search.sampler = self._sampler()
        trial = search.ask()
        arm = trial.suggest_categorical("arm", list(self.rules.space.arms))
        return self.journal.started(self._spec(arm, spaces.suggest(trial, arm)), trial)

    def _confirm(self) -> TrialRecord | None:
        """A new confirmation; None while the search runs, or if none is left."""
        left = [] if Kind.SEARCH in self._live.values() else self.confirmations()
        if left and self._tuned and not self.journal.tuned:
            # Noted once: a gain that comes out a little higher on another machine must not begin
            # the search again after the test split was scored.
            self.journal.end_as_tuned()
        return (
            self.journal.started(left[0], self.journal.studies["confirm"].ask()) if left else None
        )

    def _to_confirm(self) -> list[TrialSpec]:
        """All confirmations, those that are done included."""
        seeds = self.seeds()
        best = {arm: (record.spec.id, seeds[arm]) for arm, record in self.best().items()}
        if self._confirmed is not None and self._confirmed[0] == best:
            return self._confirmed[1]
        rules = self.rules
        untuned = TrialSpec(
            kind=Kind.UNTUNED,
            arm=str(Kind.UNTUNED),
            parameters={},
            recipe=Recipe.from_plain({slot: {"method": "frozen"} for slot in rules.slots}).plain(),
            lr=1.0,
            seed=rules.seed,
            max_examples=1,
            batch_size=rules.budget.batch_size,
            stops=(),
            base=rules.base,
            training=self._asked_as_best(),
        )
        baselines = [untuned] if rules.untuned else []
        brief = replace(untuned, training={**untuned.training, "prompt": BRIEF})
        # First of all, so that a study of an earlier version, which lacks it, is known by that.
        older = untuned.id in self.journal.records and brief.id not in self.journal.records
        if rules.brief and baselines and brief != untuned and not older:
            baselines.insert(0, brief)
        baselines = [replace(spec, split=n) for spec in baselines for n in range(rules.splits)]
        searched = [
            (self.journal.records[trial_id].spec, count) for trial_id, count in best.values()
        ]
        confirmed = [
            replace(spec, kind=Kind.CONFIRM, seed=spec.seed + number)
            for spec, count in searched
            for number in range(1, 1 + count)
        ]
        self._confirmed = best, [*baselines, *confirmed]
        return self._confirmed[1]

    def _asked_as_best(self) -> dict[str, Any]:
        """Prompt and system message of the best trial of all arms, where the arms have their own:
        the untuned model is asked as the best is."""
        best = min(self.best().values(), key=lambda record: record.loss, default=None)
        return {} if best is None else spaces.own_asking(best.spec.training)

    def _sampler(self) -> Sampler:
        """The sampler of the next draw. It depends on the seed and on the journal alone, so that a
        study that was stopped and started again draws what it would have drawn."""
        return Sampler(
            self.journal.memory,
            self.journal.running(),
            self._groups,
            draws=self.journal.draws,
            known=self._known,
            arm=self._given(),
            seed=self.rules.seed,
            search=self.rules.search,
        )

    def _known(self, arm: str, point: Mapping[str, Any]) -> bool:
        """Whether a point is a trial already. A parameter that ``point`` has no value for has only
        one."""

        def value_of(name: str, values: Range) -> Any:
            if (full := f"{arm}/{name}") in point:
                return spaces.from_optuna(values, point[full])
            return spaces.middle(name, values)

        return self._spec(arm, value_of).id in self.journal.records

    def _given(self) -> str | None:
        """The arm of the next trial; None to let TPE choose among all.

        An arm of which only failures are known is not left to TPE. To TPE it is the least explored
        and so the most promising arm, and all that is left would be spent on it. (With ``tuned`` it
        has ``LEAST`` trials first, since there each arm has a minimum of one.) Nor is an arm all of
        whose points were tried: whatever is drawn of it was drawn before.
        """
        rules, tried, failed = self.rules, self.journal.tried, self.journal.failed
        arms = len(rules.space.arms)
        poorest = min(self._open, key=lambda arm: tried[arm])
        # If time is limited, it counts the trials so far: nobody knows how many there will be.
        timed = self.spending is not None and self.spending.limit.timed
        trials = self.journal.draws.total() if timed else rules.budget.trials
        if tried[poorest] < floor(trials, arms, rules.allocate):
            return poorest
        chances = LEAST if rules.allocate == "tuned" else 0
        hopeful = [arm for arm in self._open if tried[arm] > failed[arm] or tried[arm] < chances]
        left = hopeful or self._open
        if rules.allocate == "tuned":
            return self.gains.neediest(left)
        if rules.allocate == "equal" or len(left) < arms:
            return min(left, key=lambda arm: tried[arm])
        return None

    def _spec(self, arm: str, draw: spaces.Draw) -> TrialSpec:
        """The search trial at the point of ``arm`` that ``draw`` gives."""
        rules = self.rules
        search = search_of(arm, rules.searches)
        spec = trial_of_point(
            arm,
            rules.space.arms[arm],
            draw,
            budget=rules.budget,
            slots=rules.slots,
            seed=rules.seed + SEEDS * search,
            base=rules.base,
        )
        return replace(spec, split=search) if rules.splits > 1 else spec

    def _judge_again(self) -> dict[str, bool]:
        """Judge all reports that were noted, in the order in which they came: trial id -> whether
        it went on from its last one."""
        told = [
            (rung.reported_at, record.spec, rung)
            for record in self.journal.records.values()
            for rung in record.rungs
            if rung.examples_seen < self.rungs[-1]
        ]
        in_order = sorted(told, key=lambda report: report[0])
        return {spec.id: self._judge(spec, rung) for _, spec, rung in in_order}

    def _judge(self, spec: TrialSpec, rung: Rung) -> bool:
        level = reached(self.rungs, rung.examples_seen)
        if spec.kind is not Kind.SEARCH or level == self.rungs[-1]:
            return True
        costs = tuple(rung.costs[name] for name in self.rules.objectives)
        return self.stopper.record(spec.arm, spec.id, level, rung.validation_loss, costs)
