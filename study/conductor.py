"""Decides what runs next and who goes on: search, then confirmation. Knows nothing of Ray.

The search is one joint TPE over all arms (Optuna, multivariate and grouped): the arm is a
categorical, the rest is conditional on it. Each arm first gets its floor of trials; what is left of
the budget goes where it pays, unless all of it is to be divided equally.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from search_spaces.declare import Budget, Range, Space
from study import limits, spaces
from study.allowance import Purse
from study.ledger import Ledger
from study.limits import Limit
from study.records import Kind, Outcome, Rung, TrialRecord, TrialSpec
from study.rungs import Rungs, levels
from study.sampler import Sampler, groups, points
from study.settings import ALLOCATE
from trainables.recipe import Recipe


def floor(trials: int, arms: int, allocate: str) -> int:
    """Of so many trials, those that each of ``arms`` arms gets at least; see
    ``settings.ALLOCATE``."""
    return max(1, int(ALLOCATE[allocate] * trials) // arms)


class Observer(Protocol):
    """Is told what happens, in order."""

    def started(self, record: TrialRecord) -> None:
        """A trial was drawn, or goes on after a restart."""

    def reported(self, record: TrialRecord) -> None:
        """A trial reached a rung, its last one."""

    def ended(self, record: TrialRecord) -> None:
        """A trial has its outcome."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What decides a study's trials, besides their results."""

    space: Space
    budget: Budget
    slots: tuple[str, ...]
    """Of the model."""
    seed: int
    confirm_seeds: int
    allocate: str = "floor"
    """See ``settings.ALLOCATE``."""
    objectives: tuple[str, ...] = ()
    """Costs that are to be low beside the loss; see ``study.objectives``."""
    under: tuple[Limit, ...] = ()
    """What an arm's best may cost."""
    untuned: bool = True
    """The untuned model is scored beside the arms; not where it fits into no device."""
    base: str
    """See ``TrialSpec.base``."""


class Conductor:
    """Draws trials, judges their reports, and knows when the study is over."""

    def __init__(
        self,
        rules: Rules,
        ledger: Ledger,
        observers: Sequence[Observer] = (),
        purse: Purse | None = None,
    ) -> None:
        """``purse`` if time is limited too, and not only trials."""
        self.rules, self.ledger, self.purse = rules, ledger, purse
        self.observers = observers if purse is None else (purse, *observers)
        self.stops = levels(rules.budget)
        self.rungs = Rungs(rules.budget.reduction)
        self._groups = groups(rules.space)
        self._points = {arm: points(group) for arm, group in self._groups.items()}
        self._live: dict[str, Kind] = {}
        """Trials that run now."""
        self._best: dict[str, TrialRecord] = {}
        self._confirmed: tuple[dict[str, str], list[TrialSpec]] | None = None
        """The best trials, and what is to be confirmed then."""
        self._again: deque[TrialSpec] = deque()
        """Trials that ran when the study was last killed, to be gone on with first."""
        if purse is not None:
            purse.resume(ledger.seconds, ledger.records.values())
        goes_on = self._judge_again()
        self._stopped = {trial for trial, on in goes_on.items() if not on}
        """Trials that were to be stopped at their last report; not all of them were."""
        for record in ledger.records.values():
            self._compare(record)
            if record.outcome is None:
                self._again.append(record.spec)

    @property
    def done(self) -> bool:
        """Nothing runs and nothing is left to run."""
        return not (self._live or self._again or self._searching or self.confirmations())

    @property
    def more(self) -> bool:
        """Trials may still begin."""
        searching = self._searching or Kind.SEARCH in self._live.values()
        return bool(self._again or searching or self.confirmations())

    def next(self) -> TrialSpec | None:
        """The next trial to run; None while it must wait for running ones, or when all is done."""
        self._look_into_purse()
        record = self._go_on() or self._draw() or self._confirm()
        if record is None:
            return None
        self._live[record.spec.id] = record.spec.kind
        self._tell("started", record)
        return record.spec

    def placed(self, trial_id: str, ran: Mapping[str, str]) -> None:
        """Take in how a trial is computed."""
        self.ledger.placed(trial_id, ran)

    def reported(self, trial_id: str, rung: Rung) -> bool:
        """Take a report in; True if the trial goes on. One that was heard before, of a trial that
        had to be trained again, tells nothing: the trial went on from there."""
        news = rung.examples_seen > self.ledger.records[trial_id].examples_seen
        record = self.ledger.rung(trial_id, rung)
        if news:
            self._compare(record)
            self._tell("reported", record)
        self._look_into_purse()
        goes_on = self._judge(record.spec, rung) if news else True
        return goes_on and not (record.spec.kind is Kind.SEARCH and self.ledger.cut_short)

    def ended(
        self,
        trial_id: str,
        outcome: Outcome,
        *,
        costs: Mapping[str, float],
        scores: Mapping[str, float],
        error: str = "",
        remark: str = "",
    ) -> None:
        """Take the end of a trial in."""
        del self._live[trial_id]
        record = self.ledger.ended(
            trial_id, outcome, costs=costs, scores=scores, error=error, remark=remark
        )
        self._compare(record)
        self._tell("ended", record)
        if self.purse is not None:
            self.ledger.spent(self.purse.seconds)

    def best(self) -> dict[str, TrialRecord]:
        """Arm -> the search trial with the lowest validation loss among those that got furthest.

        One that diverged or failed comes after all that did not. An arm without any report is left
        out, and so is one without any under the limits.
        """
        return {arm: self._best[arm] for arm in self.rules.space.arms if arm in self._best}

    def confirmations(self) -> list[TrialSpec]:
        """What is left to confirm: the untuned model, and each arm's best with new seeds."""
        return [s for s in self._to_confirm() if s.id not in self.ledger.records]

    @property
    def _searching(self) -> bool:
        """The search has trials left to draw."""
        left = self.ledger.draws.total() < self.rules.budget.trials and self._open
        return bool(left) and not self.ledger.cut_short

    @property
    def _open(self) -> list[str]:
        """The arms that have points left which were not tried."""
        return [arm for arm in self._points if self.ledger.tried[arm] < self._points[arm]]

    def _look_into_purse(self) -> None:
        """End the search if the rest is needed for the confirmation; each arm has its trial."""
        tried = all(self.ledger.tried[arm] for arm in self.rules.space.arms)
        if self.purse and tried and self._searching and self.purse.empty(self):
            self.ledger.cut()

    def _go_on(self) -> TrialRecord | None:
        """A trial that ran when the study was last stopped; None if there is none left. One that
        was told to stop at its last report, of which no end could be noted, ends now."""
        while self._again:
            record = self.ledger.records[self._again.popleft().id]
            if record.spec.id not in self._stopped:
                return record
            self._live[record.spec.id] = record.spec.kind
            self.ended(record.spec.id, Outcome.PRUNED, costs={}, scores={})
        return None

    def _draw(self) -> TrialRecord | None:
        """A new search trial; None if the budget is spent, or no arm has points left."""
        if not self._searching:
            return None
        search = self.ledger.studies["search"]
        search.sampler = self._sampler()
        trial = search.ask()
        arm = trial.suggest_categorical("arm", list(self.rules.space.arms))
        return self.ledger.started(self._spec(arm, spaces.suggest(trial, arm)), trial)

    def _confirm(self) -> TrialRecord | None:
        """A new confirmation; None while the search runs, or if none is left."""
        left = [] if Kind.SEARCH in self._live.values() else self.confirmations()
        return self.ledger.started(left[0], self.ledger.studies["confirm"].ask()) if left else None

    def _to_confirm(self) -> list[TrialSpec]:
        """All confirmations, those that are done included."""
        best = {arm: record.spec.id for arm, record in self.best().items()}
        if self._confirmed is not None and self._confirmed[0] == best:
            return self._confirmed[1]
        rules = self.rules
        untuned = TrialSpec(
            kind=Kind.UNTUNED,
            arm=str(Kind.UNTUNED),
            parameters={},
            recipe=Recipe.of({slot: {"method": "frozen"} for slot in rules.slots}).plain(),
            lr=1.0,
            seed=rules.seed,
            max_examples=1,
            batch_size=rules.budget.batch_size,
            stops=(),
            base=rules.base,
        )
        seeds = range(rules.seed + 1, rules.seed + 1 + rules.confirm_seeds)
        confirmed = [
            replace(self.ledger.records[trial_id].spec, kind=Kind.CONFIRM, seed=seed)
            for trial_id in best.values()
            for seed in seeds
        ]
        self._confirmed = best, [*([untuned] if rules.untuned else []), *confirmed]
        return self._confirmed[1]

    def _sampler(self) -> Sampler:
        """The sampler of the next draw. It depends on the seed and on the ledger alone, so that a
        study that was stopped and started again draws what it would have drawn."""
        return Sampler(
            self.ledger.recall,
            self.ledger.running(),
            self._groups,
            draws=self.ledger.draws,
            known=self._known,
            arm=self._given(),
            seed=self.rules.seed,
        )

    def _known(self, arm: str, point: Mapping[str, Any]) -> bool:
        """Whether a point is a trial already; what it has no value for has one value only."""

        def value_of(name: str, values: Range) -> Any:
            return point.get(f"{arm}/{name}", spaces.middle(name, values))

        return self._spec(arm, value_of).id in self.ledger.records

    def _given(self) -> str | None:
        """The arm of the next trial; None to let TPE choose, among all.

        An arm of which nothing is known but failures is not left to TPE: to it that is the least
        explored and so the most promising one, and it would spend on it all that is left. Nor is
        one all of whose points were tried: whatever is drawn of it was drawn before.
        """
        rules, tried, broken = self.rules, self.ledger.tried, self.ledger.broken
        arms = len(rules.space.arms)
        poorest = min(self._open, key=lambda arm: tried[arm])
        # Where time is the limit, of the trials so far: how many there will be nobody knows.
        timed = self.purse is not None and self.purse.allowance.timed
        trials = self.ledger.draws.total() if timed else rules.budget.trials
        if tried[poorest] < floor(trials, arms, rules.allocate):
            return poorest
        left = [arm for arm in self._open if tried[arm] > broken[arm]] or self._open
        if rules.allocate == "equal" or len(left) < arms:
            return min(left, key=lambda arm: tried[arm])
        return None

    def _spec(self, arm: str, draw: spaces.Draw) -> TrialSpec:
        """The point of ``arm`` that ``draw`` gives."""
        parameters: dict[str, Any] = {}

        def value_of(name: str, values: Range) -> Any:
            parameters[name] = draw(name, values)
            return parameters[name]

        rules = self.rules
        recipe, lr = spaces.draw(rules.space.arms[arm], rules.slots, value_of)
        return TrialSpec(
            kind=Kind.SEARCH,
            arm=arm,
            parameters=parameters,
            recipe=Recipe.of(recipe).plain(),
            lr=lr,
            seed=rules.seed,
            max_examples=self.stops[-1],
            batch_size=rules.budget.batch_size,
            stops=self.stops,
            base=rules.base,
        )

    def _judge_again(self) -> dict[str, bool]:
        """Judge all reports that were noted, in the order in which they came: trial id -> whether
        it went on from its last one."""
        told = [
            (rung.reported_at, record.spec, rung)
            for record in self.ledger.records.values()
            for rung in record.rungs
            if rung.examples_seen < self.stops[-1]
        ]
        in_order = sorted(told, key=lambda report: report[0])
        return {spec.id: self._judge(spec, rung) for _, spec, rung in in_order}

    def _judge(self, spec: TrialSpec, rung: Rung) -> bool:
        if spec.kind is not Kind.SEARCH:
            return True
        costs = tuple(rung.costs[name] for name in self.rules.objectives)
        return self.rungs.record(spec.arm, spec.id, rung.examples_seen, rung.validation_loss, costs)

    def _compare(self, record: TrialRecord) -> None:
        """Keep the best of an arm. A trial gets better by getting further, and worse if it fails:
        then any other may be the best."""
        arm, rivals = record.spec.arm, [record]
        if self._best.get(arm) is record and _failed(record):
            del self._best[arm]
            rivals = [r for r in self.ledger.of_kind(Kind.SEARCH) if r.spec.arm == arm]
        for rival in filter(self._may_be_best, rivals):
            if _merit(rival) < _merit(self._best.setdefault(arm, rival)):
                self._best[arm] = rival

    def _may_be_best(self, record: TrialRecord) -> bool:
        searched = record.spec.kind is Kind.SEARCH and bool(record.rungs)
        return searched and limits.kept(self.rules.under, record)

    def _tell(self, what: str, record: TrialRecord) -> None:
        for observer in self.observers:
            getattr(observer, what)(record)


def _failed(record: TrialRecord) -> bool:
    return record.outcome not in (None, Outcome.COMPLETE, Outcome.PRUNED)


def _merit(record: TrialRecord) -> tuple[bool, int, float, int]:
    """Lower is better: who has not failed, who got furthest, the validation loss, who was first."""
    return _failed(record), -record.examples_seen, record.loss, record.number
