"""What the search remembers, and what it draws from that."""

import math
import random
from collections.abc import Mapping, Sequence

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.declare import Arm, Choice, LogUniform, Range, method
from study.config import spaces
from study.search import sampler
from study.search.sampler import Sampler, TrialMemory
from study.search.searchers.common.known_trials import SPREAD_PER_ARM, Known
from tests.study.made_up import SPACE

GROUPS = sampler.groups(SPACE)


def ended(number: int, chance: random.Random) -> FrozenTrial:
    """A trial whose loss is lowest at a learning rate of 3e-3."""
    arm = chance.choice(list(GROUPS))
    names = GROUPS[arm]
    rates = names[f"{arm}/lr"]
    assert isinstance(rates, FloatDistribution)
    low, high = rates.low, rates.high
    lr = low * (high / low) ** chance.random()
    parameters = {"arm": arm, f"{arm}/lr": lr}
    if arm == "lora":
        parameters["lora/lora.rank"] = chance.choice((2, 8))
    distributions = {"arm": optuna.distributions.CategoricalDistribution(list(GROUPS)), **names}
    loss = abs(lr - 3e-3) + (1.0 if arm == "lora" else 0.0)
    pruned = chance.random() < 0.5
    trial = create_trial(
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
        value=None if pruned else loss,
        params=parameters,
        distributions={name: distributions[name] for name in parameters},
        intermediate_values={32: loss},
    )
    trial.number = number
    return trial


def trials(count: int) -> list[FrozenTrial]:
    chance = random.Random(0)
    return [ended(number, chance) for number in range(count)]


def remembered(some: list[FrozenTrial]) -> list[int]:
    memory = TrialMemory()
    for trial in some:
        memory.add(trial)
    return [trial.number for trial in memory.trials()]


def test_a_small_study_is_remembered_whole() -> None:
    assert remembered(trials(sampler.LATEST)) == list(range(sampler.LATEST))


def test_of_a_large_study_the_best_of_each_arm_and_the_latest_are_remembered() -> None:
    some = trials(1000)
    kept = remembered(some)
    assert len(kept) <= sampler.LATEST + sampler.BEST_PER_ARM * len(GROUPS)
    assert set(range(1000 - sampler.LATEST, 1000)) <= set(kept)
    for arm in GROUPS:
        complete = [t for t in some if t.params["arm"] == arm and t.state is TrialState.COMPLETE]
        best = sorted(complete, key=lambda t: t.value or 0.0)[: sampler.BEST_PER_ARM]
        assert {trial.number for trial in best} <= set(kept)


def test_what_is_remembered_does_not_depend_on_who_ended_first() -> None:
    some = trials(600)
    shuffled = random.Random(1).sample(some, len(some))
    assert remembered(shuffled) == remembered(some)


LATER = dict.fromkeys(GROUPS, 300)


def draw(
    memory: TrialMemory,
    *,
    seed: int,
    arm: str | None = None,
    draws: Mapping[str, int] = LATER,
    running: Sequence[FrozenTrial] = (),
    known: Known = lambda arm, point: False,
) -> dict[str, float]:
    own = Sampler(memory, [*running], GROUPS, draws=draws, known=known, arm=arm, seed=seed)
    trial = optuna.create_study(sampler=own).ask()
    chosen = trial.suggest_categorical("arm", list(GROUPS))
    for name, distribution in GROUPS[chosen].items():
        trial._suggest(name, distribution)
    return trial.params


@pytest.fixture(scope="module")
def memory() -> TrialMemory:
    memory = TrialMemory()
    for trial in trials(600):
        memory.add(trial)
    return memory


def test_the_search_goes_where_losses_are_low(memory: TrialMemory) -> None:
    drawn = [draw(memory, seed=seed) for seed in range(30)]
    assert sum(point["arm"] == "layernorm" for point in drawn) > 20
    rates = [point["layernorm/lr"] for point in drawn if "layernorm/lr" in point]
    near = sum(1e-3 < rate < 1e-2 for rate in rates)
    assert near > 0.6 * len(rates)  # a third of the range, were it random


def test_an_arm_that_is_given_is_taken_and_drawn_for(memory: TrialMemory) -> None:
    drawn = [draw(memory, seed=seed, arm="lora") for seed in range(10)]
    assert all(set(point) == {"arm", "lora/lr", "lora/lora.rank"} for point in drawn)
    assert len({point["lora/lr"] for point in drawn}) == 10


@pytest.mark.parametrize("arm", list(GROUPS))
def test_an_arm_that_is_behind_has_its_learning_rate_tuned_like_any_other(
    memory: TrialMemory, arm: str
) -> None:
    """Every trial of lora has a higher loss than every one of layernorm."""
    drawn = [draw(memory, seed=seed, arm=arm)[f"{arm}/lr"] for seed in range(40)]
    near = sum(1e-3 < rate < 1e-2 for rate in drawn)
    assert near > 0.6 * len(drawn)  # a third of the range, were it random


def test_an_arms_parameters_are_drawn_from_its_own_trials(memory: TrialMemory) -> None:
    """Whatever becomes of others, running ones included."""
    alone = TrialMemory()
    for trial in memory.trials():
        if trial.params["arm"] == "lora":
            alone.add(trial)
    assert draw(alone, seed=0, arm="lora") == draw(memory, seed=0, arm="lora")
    running = [trial for trial in trials(20) if trial.params["arm"] == "layernorm"]
    for trial in running:
        trial.state = TrialState.RUNNING
    assert draw(memory, seed=0, arm="lora", running=running) == draw(memory, seed=0, arm="lora")


def test_the_same_memory_and_seed_draw_the_same(memory: TrialMemory) -> None:
    assert draw(memory, seed=3) == draw(memory, seed=3)
    assert draw(memory, seed=3) != draw(memory, seed=4)


@pytest.mark.parametrize("draws", [{}, LATER])
def test_a_point_that_is_known_is_not_drawn_again(
    memory: TrialMemory, draws: Mapping[str, int]
) -> None:
    """However sure TPE is of it, or if it is one of the first."""

    def known(arm: str, point: Mapping[str, float]) -> bool:
        return point["lora/lora.rank"] == 8

    drawn = [
        draw(memory, seed=seed, arm="lora", draws=draws, known=known)["lora/lora.rank"]
        for seed in range(20)
    ]
    assert set(drawn) == {2}


def test_an_arms_different_points_are_counted() -> None:
    def count(lr: Range | float, **settings: Choice) -> float:
        arm = Arm(everywhere=method("lora", **settings), lr=lr)
        return spaces.points(arm)

    assert count(1e-3) == 1
    assert count(Choice(1e-3, 1e-2), rank=Choice(2, 4, 8)) == 6
    assert count(1e-3, rank=Choice(2, 8, 8)) == 2
    assert count(LogUniform(1e-4, 1e-3), rank=Choice(2, 4)) == math.inf


def test_before_there_is_enough_to_learn_from_arms_are_drawn_by_chance() -> None:
    drawn = [draw(TrialMemory(), seed=seed, draws={}) for seed in range(20)]
    assert {point["arm"] for point in drawn} == set(GROUPS)


@pytest.mark.parametrize("seed", range(5))
def test_the_first_points_of_an_arm_lie_all_over_its_ranges(memory: TrialMemory, seed: int) -> None:
    """However good or bad what is known of it already."""
    count = SPREAD_PER_ARM
    drawn = [draw(memory, seed=seed, arm="lora", draws={"lora": n}) for n in range(count)]
    distribution = GROUPS["lora"]["lora/lr"]
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    low, high = distribution.low, distribution.high
    shares = [math.log(point["lora/lr"] / low) / math.log(high / low) for point in drawn]
    assert sorted(int(share * count) for share in shares) == list(range(count))
    assert sorted(point["lora/lora.rank"] for point in drawn) == [2, 2, 8, 8]
    assert draw(memory, seed=seed + 1, arm="lora", draws={}) not in drawn
