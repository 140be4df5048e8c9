"""What is said of arms: findings and sentences follow from the numbers."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from study.analysis.result_types import ArmResult, BestTrial, SeedScores
from study.analysis.verdict import SCOPE, answer, parts
from study.statistics.pairwise import Comparison, compare, over_parts
from study.statistics.rates import exact_rate
from study.statistics.score_types import ArmPair, Claim, Collapse, Estimate, Finding, Score
from study.trials.record import Outcome


def comparison(mean: float, low: float, high: float, p: float = 0.2, **changed: Any) -> Comparison:
    given: dict[str, Any] = {
        "first": "a",
        "second": "b",
        "difference": Estimate(mean=mean, low=low, high=high),
        "p": p,
        "p_holm": p,
        "margin": 1.0,
        "seeds": 3,
        "questions": 1000,
        "seeds_share": 0.5,
        "points_to_tell": 1.5,
        "seeds_needed": 9,
        "questions_needed": 4321,
    }
    return Comparison(**given | changed)


@pytest.mark.parametrize(
    ("found", "finding", "said"),
    [
        (
            comparison(3.0, 1.0, 5.0, 0.004),
            Finding.BETTER,
            "a is better than b by 3.0 points (95% interval +1.0 to +5.0, p = 0.004).",
        ),
        (
            comparison(-3.0, -5.0, -1.0, 0.0001),
            Finding.BETTER,
            "b is better than a by 3.0 points (95% interval +1.0 to +5.0, p < 0.001).",
        ),
        (
            comparison(0.5, 0.1, 0.9, 0.01),
            Finding.BETTER,
            (
                "a is better than b by 0.5 points (95% interval +0.1 to +0.9, p = 0.010), "
                "which is less than the margin of 1 point."
            ),
        ),
        (
            comparison(-0.2, -0.8, 0.4),
            Finding.AS_GOOD,
            (
                "a is not worse than b by more than the margin of 1 point, nor b than a: "
                "b is higher by 0.2 points (95% interval -0.4 to +0.8, p = 0.200)."
            ),
        ),
        (
            comparison(-2.0, -4.5, 0.5),
            Finding.NOT_WORSE,
            (
                "b is not worse than a by more than the margin of 1 point, and may be better: "
                "it is higher by 2.0 points (95% interval -0.5 to +4.5, p = 0.200)."
            ),
        ),
        (
            comparison(-1.0, -4.0, 2.0),
            Finding.UNDECIDED,
            (
                "b and a cannot be told apart: b is higher by 1.0 points (95% interval -2.0 to "
                "+4.0, p = 0.200). To tell 1.5 points, about 6 more seeds an arm or 3,400 more "
                "questions would be needed."
            ),
        ),
    ],
)
def test_the_sentence_says_what_the_numbers_do(
    found: Comparison, finding: Finding, said: str
) -> None:
    assert found.finding == finding
    assert found.sentence() == said


def test_from_one_seed_nothing_is_found() -> None:
    for clear in (comparison(9.0, 7.0, 11.0, 1e-4, seeds=1), comparison(0.0, -0.1, 0.1, seeds=1)):
        assert clear.finding == Finding.UNDECIDED and "--seeds 3 adds seeds" in clear.sentence()


def test_an_interval_that_excludes_zero_is_not_enough_among_many_pairs() -> None:
    assert comparison(3.0, 0.2, 5.8, 0.04).finding == Finding.BETTER
    assert comparison(3.0, 0.2, 5.8, 0.04, p_holm=0.4).finding == Finding.NOT_WORSE


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"questions_needed": None}, "6 more seeds an arm would be needed (more questions alone"),
        ({"seeds_needed": None}, "about 3,400 more questions would be needed (more seeds alone"),
        ({"seeds_needed": None, "questions_needed": None}, "it takes more of both"),
        (
            {"seeds": 1},
            "b is higher than a by 1.0 points (95% interval -2.0 to +4.0, p = 0.200). No arm is",
        ),
    ],
)
def test_what_would_be_needed(changed: dict[str, Any], said: str) -> None:
    assert said in comparison(-1.0, -4.0, 2.0, **changed).sentence()


def test_pairs_are_corrected_for_one_another() -> None:
    drawn = np.random.default_rng(0)
    hard = drawn.random(600)
    chances = {"a": 0.70, "b": 0.66, "c": 0.66, "d": 0.30}
    correct = {
        arm: (hard + 0.1 * drawn.standard_normal((3, 600)) < chance).astype(float)
        for arm, chance in chances.items()
    }
    images = [str(q // 3) for q in range(600)]
    compared = compare(correct, images, margin=1.0)
    estimates, found = compared.scores, compared.pairs
    assert [(c.first, c.second) for c in found] == [
        *(("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")),
    ]
    by_pair = {(c.first, c.second): c for c in found}
    assert by_pair["a", "d"].told_apart and not by_pair["b", "c"].told_apart
    assert all(c.p <= c.p_holm <= 6 * c.p + 1e-12 for c in found)
    assert list(estimates) == list(chances)


@pytest.mark.parametrize(
    ("images", "differ", "finding"),
    [
        (1, 1, Finding.UNDECIDED),
        (4, 4, Finding.UNDECIDED),
        (5, 0, Finding.UNDECIDED),
        (40, 1, Finding.UNDECIDED),
        (200, 0, Finding.UNDECIDED),
        (400, 0, Finding.AS_GOOD),
        (400, 1, Finding.NOT_WORSE),
        (600, 6, Finding.BETTER),
        (20, 12, Finding.BETTER),
    ],
)
def test_few_images_alike_do_not_make_arms_as_good(
    images: int, differ: int, finding: Finding
) -> None:
    asked, right = [str(image) for image in range(images)], np.ones((3, images))
    wrong = right.copy()
    wrong[:, :differ] = 0
    (found,) = compare({"a": right, "b": wrong}, asked, margin=1.0).pairs
    assert found.finding == finding


def test_alike_on_few_images_more_of_them_are_needed_and_seeds_are_not() -> None:
    right = np.ones((3, 20))
    asked = [str(i) for i in range(20)]
    (found,) = compare({"a": right, "b": right}, asked, margin=1.0).pairs
    assert found.sentence() == (
        "a and b cannot be told apart: a is higher by 0.0 points (95% interval -15.0 to +15.0, "
        "p = 1.000). To tell 1.0 points, about 280 more questions would be needed (more seeds "
        "alone would not do)."
    )


def test_types_of_questions_are_corrected_for_all_that_is_tested_and_overall_is_not() -> None:
    ps = {"overall": 0.04, "open": 0.03, "closed": 0.2, "yes_no": 0.01, "other": 0.5}
    found = over_parts({part: [comparison(3.0, 0.2, 5.8, p)] for part, p in ps.items()})
    assert {part: one.p_holm for part, (one,) in found.items()} == pytest.approx(
        {"overall": 0.04, "open": 0.09, "closed": 0.2, "yes_no": 0.03, "other": 0.5}
    )
    assert found["overall"][0].finding == Finding.BETTER != found["open"][0].finding
    # No closed questions: open is corrected for overall alone, of both pairs.
    two = [comparison(3.0, 0.2, 5.8, p) for p in (0.01, 0.02)]
    assert [c.p_holm for c in over_parts({"overall": two, "open": two})["open"]] == pytest.approx(
        [0.04, 0.04]
    )


BEST = BestTrial(trial="abc", parameters={}, validation_loss=1.0, examples_seen=96)


def arm(
    name: str, mean: float, *, trained: float = 100.0, seeds: int = 3, **dropped: int
) -> ArmResult:
    none = dict.fromkeys(Outcome, 0)
    return ArmResult(
        arm=name,
        test={"overall": Score(mean=mean, low=mean - 5, high=mean + 5)},
        seeds=(SeedScores(seed=0, trial="abc", scores={}),) * seeds,
        best=BEST,
        trials=none | {Outcome.COMPLETE: 4},
        confirmations=none
        | {Outcome.COMPLETE: seeds}
        | {Outcome(how): count for how, count in dropped.items()},
        costs={"trained_parameters": trained},
        search_seconds=1.0,
        collapsed=False,
    )


def pair(second: str, found: Comparison, **types: Comparison) -> ArmPair:
    parts = {"overall": found, **types}
    return ArmPair(first="a", second=second, parts={p: c.result() for p, c in parts.items()})


def test_the_answer_ranks_many_arms() -> None:
    arms = [arm("a", 60), arm("b", 59.8, trained=20), arm("c", 57), arm("d", 40)]
    said = answer(
        arms,
        [
            pair("b", comparison(0.2, -0.4, 0.8)),
            pair("c", comparison(3.0, -2.0, 8.0)),
            pair("d", comparison(20.0, 15.0, 25.0, 0.0001)),
        ],
        majority=30.0,
    )
    assert said.startswith(
        "a scores highest (60.0%): it is better than d; it is as good as b to within the "
        "margin of 1 point. It cannot be told apart from c, which is lower by 3.0 points (95% "
        "interval -2.0 to +8.0, p = 0.200).\nTo tell 1.5 points, about 6 more seeds an arm or "
    )
    assert said.endswith(f"\nb trains 5.0 times fewer parameters than a.\n{SCOPE[Claim.MODELS]}")
    found, caveats = parts(said)
    assert "\n".join([found, *caveats]) == said and found.count(". ") == 1, "two sentences"


def test_the_answer_counts_arms_where_their_names_would_be_many() -> None:
    names = [f"arm{number}" for number in range(7)]
    arms = [arm("a", 60), *(arm(name, 50) for name in names)]
    better = [pair(name, comparison(10.0, 8.0, 12.0, 0.0001)) for name in names[:6]]
    said = answer(arms, [*better, pair("arm6", comparison(1.0, -2.0, 4.0))], majority=30.0)
    assert said.startswith(
        "a scores highest (60.0%): it is better than 6 of the 7 other arms (arm0, arm1, arm2, arm3 "
        "and 2 more). It cannot be told apart from arm6, which is lower by 1.0 points (95% "
    )


def test_the_answer_names_all_whom_the_best_cannot_be_told_from() -> None:
    close = comparison(1.0, -2.0, 4.0)
    arms = [arm("a", 60), arm("b", 59), arm("c", 58)]
    said = answer(arms, [pair("b", close), pair("c", close)], majority=30.0)
    assert said.startswith(
        "a scores highest (60.0%), but is not shown to be better than another. It cannot be told "
        "apart from b and c; the closest is b, lower by 1.0 points (95% interval -2.0 to +4.0, "
        "p = 0.200).\nTo tell "
    )


def test_an_arm_that_is_better_than_all_is_said_so_with_the_closest() -> None:
    arms = [arm("a", 60), arm("b", 59.5), arm("c", 50)]
    pairs = [pair("b", comparison(0.5, 0.1, 0.9, 0.01)), pair("c", comparison(9, 5, 13, 0.01))]
    assert answer(arms, pairs, majority=30.0).startswith(
        "a is better than every other arm. The closest is b, lower by 0.5 points (95% interval "
        "+0.1 to +0.9, p = 0.010), which is less than the margin of 1 point.\n"
    )


def test_the_answer_of_two_arms_is_their_sentence_with_its_caveats() -> None:
    found = comparison(3.0, 1.0, 5.0, 0.004)
    said = answer([arm("a", 34, seeds=1), arm("b", 31)], [pair("b", found)], majority=28.0)
    assert said == (
        f"{found.sentence()}\n{SCOPE[Claim.MODELS]}\nb is not shown to beat always giving the most "
        "frequent answer (28.0%).\na is known by one seed only."
    )


def test_what_is_found_supposes_that_training_does_not_collapse() -> None:
    def steady(name: str, score: int, seeds: int) -> ArmResult:
        rate = exact_rate(0, seeds)
        hurdle = Collapse(seeds=seeds, collapsed=0, rate=rate, otherwise=None)
        return replace(arm(name, score), collapse=hurdle)

    arms, found = [steady("a", 60, 6), steady("b", 50, 3)], comparison(10.0, 8.0, 12.0, 0.0001)
    condition = (
        "It supposes that training does not collapse: with 3 seeds of an arm and no collapse, up "
        "to 63% of its trainings may."
    )
    said = answer(arms, [pair("b", found)], majority=30.0)
    assert said == f"{found.sentence()}\n{SCOPE[Claim.MODELS]}\n{condition}"
    nothing = answer(arms, [pair("b", comparison(1.0, -2.0, 4.0))], majority=30.0)
    assert "supposes" not in nothing, "nothing was found that it could be a condition of"


def test_what_two_arms_differ_in_on_one_type_alone_is_a_lead() -> None:
    close, apart = comparison(1.0, -2.0, 4.0), comparison(-5.0, -8.0, -2.0, 0.006)
    arms = [arm("a", 60), arm("b", 59)]
    lead = answer(arms, [pair("b", close, open=close, closed=apart)], majority=30.0)
    assert lead == (
        f"{close.sentence()}\nA lead, not a finding: on closed questions alone b is higher "
        "by 5.0 points (95% interval +2.0 to +8.0, p = 0.006).\n" + SCOPE[Claim.MODELS]
    )
    better = comparison(3.0, 1.0, 5.0, 0.004)
    for both in (pair("b", better, closed=apart), pair("b", better, closed=close)):
        said = answer(arms, [both], majority=30.0, claim=Claim.METHODS)
        assert said == f"{better.sentence()}\n{SCOPE[Claim.METHODS]}"


def test_the_answer_says_which_confirmations_are_not_in_a_score() -> None:
    found = comparison(3.0, 1.0, 5.0, 0.004)
    arms = [arm("a", 60, seeds=2, diverged=1), arm("b", 55)]
    assert answer(arms, [pair("b", found)], majority=30.0) == (
        f"{found.sentence()}\n{SCOPE[Claim.MODELS]}\nOf 3 confirmations of a, 1 diverged: "
        "its score is that of the rest."
    )
    nothing = replace(arm("c", math.nan, seeds=0, failed=2, out_of_memory=1), test=None)
    said = answer([*arms, nothing], [pair("b", found)], majority=30.0)
    assert said.endswith(
        "Of 3 confirmations of c, 1 ran out of memory and 2 failed: so it has no score."
    )
    assert answer([nothing], [], 0.0).endswith("and 2 failed: so it has no score.")


def test_without_confirmed_arms_there_is_no_answer() -> None:
    nothing = replace(arm("a", math.nan, seeds=0), test=None)
    assert answer([nothing], [], 0.0) == "No arm could be confirmed, so there is no answer."
    assert answer([arm("b", 60), nothing], [], 0.0).startswith("Only b could be confirmed")
    costly = replace(nothing, best=None)
    assert answer([costly], [], 0.0) == (
        "No arm could be confirmed, so there is no answer.\n"
        "No trial of a that reported a loss kept to --under."
    )
    ended = {Outcome.DIVERGED: 2, Outcome.FAILED: 1}
    mixed = replace(costly, trials=dict.fromkeys(Outcome, 0) | ended)
    assert answer([mixed, costly], [], 0.0, {"a": "it broke"}) == (
        "No arm could be confirmed, so there is no answer.\n"
        "No trial of a reported a loss: 2 diverged and 1 failed, the first with 'it broke'.\n"
        "No trial of a that reported a loss kept to --under."
    )
