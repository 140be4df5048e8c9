"""Foretells how long a study takes, from steps that were measured on its devices.

Each part of a study is foretold twice: *about*, what is expected, and *most*, which should not be
passed. How far both hold is measured by ``tests.benchmarks.foretold``.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from study.config import search_methods
from study.config.budget import levels
from study.trials.callback import StudyCallback
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind
from trainables.training.blind import BLIND

if TYPE_CHECKING:
    from search_spaces.declare import Budget
    from trainables.training.step_seconds import StepSeconds

STOPPED = 0.6
"""Share of the trials which a rule of early stopping stops at its own rate that it does stop: the
first trials of an arm have nothing to be compared with. So a search by ``median`` costs 0.61, and
one by ``asha`` 0.44, of all trials trained to their end (``tests.benchmarks.searchers``)."""
STARTING = (14.0, 40.0)
"""Seconds until the first trial begins where no start was measured, as in a dry run: about, most.
Most of it are Ray's start and imports."""
BEGINNING = (2.0, 15.0)
"""Seconds from the plan to the first trial."""
BETWEEN = (0.15, 0.6)
"""Seconds of a device for each trial beside its training and answers: a recipe is applied, a
checkpoint is written, the next point is drawn."""
CLOSING = (9.0, 30.0)
"""Seconds from the end of the last trial to that of the study: intervals, report, models, MLflow's
last writes, Ray's end."""
BUSY = (1.15, 1.8)
"""Ratio of what a step takes in a study, beside other trials and the driver, to what it took when
it was measured."""
PRIOR = 0.03
"""Share of a search that the forecast's own pace weighs as much as, beside the pace of trials that
ran."""
PRIOR_SECONDS = 10.0
"""Device-seconds that it weighs as much as at least. The first trial takes some seconds more than
others, in which its host sets itself up; in a short study they are no sign of a slow machine."""
PRIOR_TRIALS = 4
"""Number of search trials that the expected seconds of one weigh as much as."""


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """Seconds of a part of a study."""

    about: float
    """Seconds that are expected."""
    most: float
    """Seconds that should not be passed."""

    def __add__(self, other: Foretold) -> Foretold:
        return Foretold(about=self.about + other.about, most=self.most + other.most)


@dataclass(frozen=True, kw_only=True)
class QuestionCounts:
    """Numbers of questions that trials read and answer."""

    train: int
    validation: int
    test: int
    ood: int
    """Test questions of all other datasets."""


@dataclass(frozen=True, kw_only=True)
class TimeForecast:
    """What the parts of a study take."""

    steps: Mapping[str, StepSeconds]
    """Arm -> measured seconds of its steps on one device."""
    measured: bool = True
    """Whether ``steps`` were measured. Else they are alike, of any unit, and only say what share of
    a study is done."""
    budget: Budget
    """Budget of each trial and of the search."""
    trials: int
    """Most trials of the search."""
    stop: str
    """Rule of early stopping."""
    seeds: int
    """Confirmations of each arm."""
    times_if_unsteady: int = 1
    """Multiple of these that an arm has which proves unsteady in the search."""
    untuned: int
    """Number of times that the untuned model answers."""
    questions: QuestionCounts
    devices: int
    """Devices that compute at the same time."""
    begun: float | None = None
    """Seconds from the start of the command to the plan; None if nothing was started."""
    stops: tuple[int, ...] = field(init=False)
    """Examples seen at the rungs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stops", levels(self.budget))

    @classmethod
    def unmeasured(cls, arms: Iterable[str]) -> Mapping[str, StepSeconds]:
        """Steps of arms of which none was timed: a validation loss is a third of a training step,
        and an answer about as long as one."""
        from trainables.training.step_seconds import StepSeconds

        alike = StepSeconds(training=1.0, frozen=0.0, validation=1 / 3, answer=1.0)
        return dict.fromkeys(arms, alike)

    @property
    def start(self) -> Foretold:
        """Seconds until the first trial begins."""
        if self.begun is None:
            return Foretold(about=STARTING[0], most=STARTING[1])
        return Foretold(about=self.begun + BEGINNING[0], most=self.begun + BEGINNING[1])

    @property
    def frozen(self) -> Foretold:
        """Seconds of the output of frozen stages, which is computed once, by one device. It
        counts questions, so it is too much where several ask about one image."""
        questions = self.questions.train + self.questions.validation
        each = max((s.frozen for s in self.steps.values()), default=0.0)
        return Foretold(about=questions * each, most=BUSY[1] * questions * each)

    @property
    def searched(self) -> float:
        """Expected device-seconds of a search trial, a mean of arms."""
        rate = search_methods.passing(self.stop, self.budget.reduction)
        passing = 1 - (1 - rate) * STOPPED
        return sum(self._stopped(arm, passing) for arm in self.steps) / len(self.steps)

    @property
    def search(self) -> Foretold:
        """Seconds of the search."""
        longest = max(self.trial(Kind.SEARCH, arm) for arm in self.steps)
        return Foretold(
            about=self.trials * (BUSY[0] * self.searched + BETWEEN[0]) / self.devices,
            most=math.ceil(self.trials / self.devices) * (BUSY[1] * longest + BETWEEN[1]),
        )

    @property
    def confirmation(self) -> Foretold:
        """Seconds of the confirmation, and of the untuned model's answers. No arm is expected to
        prove unsteady, and all may."""
        trained = [self.trial(Kind.CONFIRM, arm) for arm in self.steps for _ in range(self.seeds)]
        answered = [self.trial(Kind.UNTUNED, arm) for arm in [*self.steps][:1]] * self.untuned
        each = trained + answered
        # Devices wait for the last of these trials.
        waiting = (self.devices - 1) / 2 * max(each)
        about = (BUSY[0] * (sum(each) + waiting) + BETWEEN[0] * len(each)) / self.devices
        most = self.times_if_unsteady * len(trained) + len(answered)
        waves = math.ceil(most / self.devices)
        return Foretold(about=about, most=waves * (BUSY[1] * max(each) + BETWEEN[1]))

    @property
    def close(self) -> Foretold:
        """Seconds from the end of the last trial to that of the study."""
        return Foretold(about=CLOSING[0], most=CLOSING[1])

    @property
    def parts(self) -> Mapping[str, Foretold]:
        """Name of each part -> its seconds, in their order."""
        return {
            "start": self.start,
            "search": self.frozen + self.search,
            "confirmation": self.confirmation,
            "report": self.close,
        }

    @property
    def whole(self) -> Foretold:
        """Seconds of the whole study."""
        return sum(self.parts.values(), start=Foretold(about=0.0, most=0.0))

    def trial(self, kind: Kind, arm: str, examples: int | None = None) -> float:
        """Measured device-seconds of a trial that trains for ``examples``, all if None; it answers
        if it trains all."""
        whole = self.stops[-1]
        if kind is Kind.UNTUNED:
            return self._answers(kind, arm)
        seen = whole if examples is None else examples
        found = self._training(arm, seen)
        return found + (self._answers(kind, arm) if seen >= whole else 0.0)

    def _stopped(self, arm: str, passing: float) -> float:
        """Expected device-seconds of a search trial of which a share ``passing`` passes each
        rung."""
        found, before = 0.0, 0.0
        for number, stop in enumerate(self.stops):
            upto = self._training(arm, stop)
            found += passing**number * (upto - before)
            before = upto
        return found + passing ** (len(self.stops) - 1) * self._answers(Kind.SEARCH, arm)

    def _training(self, arm: str, examples: int) -> float:
        """Training and validation losses up to ``examples``."""
        steps = self.steps[arm]
        rungs = sum(stop <= examples for stop in self.stops)
        validation = self.questions.validation * max(steps.validation - steps.frozen, 0.0)
        return examples * max(steps.training - steps.frozen, 0.0) + rungs * validation

    def _answers(self, kind: Kind, arm: str) -> float:
        # Answers of the untuned model take as long as those of any arm.
        steps = self.steps.get(arm) or next(iter(self.steps.values()))
        count = self.questions
        asked = count.validation
        likelihoods = 0.0
        if kind is not Kind.SEARCH:
            asked += count.test * (1 + len(BLIND)) + count.ood
            likelihoods = 2 * count.test * steps.validation  # of two possible answers
        return asked * steps.answer + likelihoods


class TimeLeft(StudyCallback):
    """Callback of the scheduler that says how long a study still takes.

    What is ahead is counted in the seconds of the forecast. How long such a second takes is what
    those of this session took so far, and at first what the forecast supposes.
    """

    def __init__(self, forecast: TimeForecast, clock: Callable[[], float] = time.monotonic) -> None:
        self.forecast, self.clock = forecast, clock
        self.search_over = False
        """Whether no more search trials begin."""
        self.seeds: Mapping[str, int] = dict.fromkeys(forecast.steps, forecast.seeds)
        """Arm -> number of its confirmations."""
        self._ended: Counter[tuple[Kind, str]] = Counter()
        """(kind, arm) -> number of trials that ended; those of earlier sessions too."""
        self._searched = 0.0
        """Seconds of the forecast of all search trials that ended."""
        self._running: dict[str, tuple[TrialRecord, float]] = {}
        """Trial id -> record, and what it had done when it began in this session."""
        self._done = 0.0
        """Seconds of the forecast that trials which ended took in this session."""
        self._first: float | None = None
        """Time, by ``clock``, at which this session's first trial began."""

    def resume(self, record: TrialRecord) -> None:
        """Count a trial that ended in an earlier session."""
        spec = record.spec
        self._ended[spec.kind, spec.arm] += 1
        if spec.kind is Kind.SEARCH:
            self._searched += self._seconds(record)

    def started(self, record: TrialRecord) -> None:
        """Note that a trial begins."""
        self._first = self.clock() if self._first is None else self._first
        self._running[record.spec.id] = record, self._seconds(record)

    def ended(self, record: TrialRecord) -> None:
        """Count a trial that has ended."""
        _, before = self._running.pop(record.spec.id, (record, 0.0))
        self._done += self._seconds(record) - before
        self.resume(record)

    def left(self) -> float | None:
        """Seconds until the study has ended; None if nothing is known of its pace."""
        forecast, running = self.forecast, [record for record, _ in self._running.values()]
        searched = sum(count for (kind, _), count in self._ended.items() if kind is Kind.SEARCH)
        mean = self._searched + PRIOR_TRIALS * forecast.searched
        mean /= searched + PRIOR_TRIALS
        current = [r for r in running if r.spec.kind is Kind.SEARCH]
        to_begin = 0 if self.search_over else max(forecast.trials - searched - len(current), 0)
        ahead = to_begin * mean + sum(max(mean - self._seconds(r), 0.0) for r in current)
        for arm in forecast.steps:
            open_trials = max(self.seeds[arm] - self._ended[Kind.CONFIRM, arm], 0)
            ahead += open_trials * forecast.trial(Kind.CONFIRM, arm)
        # The untuned model may be asked in two ways.
        answered = sum(n for (kind, _), n in self._ended.items() if kind is Kind.UNTUNED)
        ahead += max(forecast.untuned - answered, 0) * forecast.trial(Kind.UNTUNED, "")
        ahead -= sum(self._seconds(r) for r in running if r.spec.kind is not Kind.SEARCH)
        prior = max(PRIOR * forecast.trials * forecast.searched, PRIOR_SECONDS)
        prior *= forecast.measured
        gone = 0.0 if self._first is None else self.clock() - self._first
        done = self._done + sum(self._seconds(r) - before for r, before in self._running.values())
        if not done + prior:
            return None
        pace = (gone + prior * BUSY[0] / forecast.devices) / (done + prior)
        return max(ahead, 0.0) * pace + forecast.close.about

    def _seconds(self, record: TrialRecord) -> float:
        """Seconds of the forecast of what a trial has done so far."""
        kind, arm = record.spec.kind, record.spec.arm
        if kind is Kind.UNTUNED:
            return self.forecast.trial(kind, arm) if record.outcome else 0.0
        seen = record.examples_seen
        if record.outcome is not Outcome.COMPLETE:  # it has not answered
            seen = min(seen, self.forecast.stops[-1] - 1)
        return self.forecast.trial(kind, arm, seen)
