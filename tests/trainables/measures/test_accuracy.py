"""Normalisation, accuracy, the majority baseline, and the sign of a collapsed model."""

from __future__ import annotations

import math

import pytest

from tests.trainables.measures.examples import examples
from trainables.measures.common import reports
from trainables.measures.common.baselines import has_collapsed, majority_answers, majority_baseline
from trainables.measures.common.lenient import lenient_score
from trainables.measures.common.normalize import correct, normalize
from trainables.measures.common.parts import answer_score
from trainables.measures.common.scores import score, shown_columns
from trainables.measures.token_overlap import token_overlap


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("Yes", "yes"),
        (" X-Ray. ", "x ray"),
        ("the left  lung", "left lung"),
        ("Two", "2"),
        ("none", "0"),
        ("ten", "10"),
        ("3.5 cm", "3.5 cm"),
        ("1,000", "1000"),
        ("right/left", "right left"),
        ("don't", "dont"),
        ("Sj\u00f6gren's", "sjogrens"),
        ("\u809d\u810f", "\u809d\u810f"),
        ("a", ""),
        ("", ""),
    ],
)
def test_normalize(answer: str, normal: str) -> None:
    assert normalize(answer) == normal
    assert normalize(normal) == normal


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("\u809d\u810f\u3002", "\u809d\u810f", True),
        ("\u809d \u810f", "\u809d\u810f", True),  # as BERT's tokenizer writes it
        ("\u809d\u3001\u80ba", "\u809d\uff0c\u80ba", True),
        ("\uff13\uff0e\uff15 cm", "3.5 cm", True),
        ("\uff11\uff0c\uff10\uff10\uff10", "1000", True),
        ("x \u5149", "X\u5149", True),
        ("\u0663\u066b\u0665", "3.5", True),
        ("\u00bd", "1/2", True),
        ("\uff76\uff9e", "\u30ac", True),  # of half width, with its mark
        ("5\u201310", "5-10", True),
        ("\u201cyes\u201d", "yes", True),
        ("caf\u00e9", "cafe", True),
        ("\u304c", "\u304b", False),
        ("\u0939\u0948", "\u0939", False),
        ("\u0439", "\u0438", False),
    ],
)
def test_answers_of_other_scripts(answer: str, truth: str, same: bool) -> None:
    assert correct(answer, truth) is same
    assert normalize(normalize(answer)) == normalize(answer)


def test_a_script_without_blanks_is_measured_by_characters() -> None:
    assert token_overlap("\u809d\u810f\u3002", "\u809d") == pytest.approx((100, 200 / 3))
    report = "\u80ba\u6e05\u6670\uff0c\u5fc3\u6b63\u5e38\u3002"
    assert reports.clean(report) == "\u80ba \u6e05 \u6670 \u5fc3 \u6b63 \u5e38 ."
    asked, partly = examples(("report", report), ("report", "\u80ba\u3002")), report[:3] + "\u3002"
    scores = score(asked, [partly, "\u80ba\u3002"])
    assert 0 < scores["bleu_2"] < 100 and 0 < scores["cider"] < 1000
    assert reports.rouge_l(report, "\u80ba \u6e05 \u6670. \u5fc3 \u6b63 \u5e38.") < 1


def test_correct_is_an_exact_match_of_what_is_normal() -> None:
    assert correct("Four", "4.")
    assert not correct("left", "left lung")


def test_open_and_closed_are_counted_apart() -> None:
    asked = examples(("open", "ct"), ("open", "mri"), ("closed", "yes"), ("closed", "no"))
    scores = score(asked, ["CT", "ct", "yes", "no"])
    assert (scores["open"], scores["closed"], scores["overall"]) == (50, 100, 75)


def test_yes_and_no_are_counted_apart_whatever_their_type() -> None:
    asked = examples(("open", "yes"), ("closed", "left"), ("closed", "no"), ("closed", "right"))
    scores = score(asked, ["yes", "left", "yes", "left"])
    assert (scores["yes_no"], scores["other"]) == (50, 50)
    assert scores["closed"] == pytest.approx(100 / 3)


def test_no_questions_no_accuracy() -> None:
    scores = score(examples(("closed", "yes")), ["yes"])
    assert all(math.isnan(scores[name]) for name in ("open", "other", "token_f1"))
    assert scores["overall"] == 100


@pytest.mark.parametrize(
    ("predicted", "answer", "recall", "f1"),
    [
        ("left lung", "the left lung", 100, 100),
        ("the lung on the left of the image", "left lung", 100, 200 * 2 / 7),
        ("lung", "left lung", 50, 200 / 3),
        ("heart", "left lung", 0, 0),
        ("", "left lung", 0, 0),
        ("a", "the", 100, 100),
    ],
)
def test_token_overlap(predicted: str, answer: str, recall: float, f1: float) -> None:
    assert token_overlap(predicted, answer) == pytest.approx((recall, f1))


def test_one_prediction_for_each_question() -> None:
    with pytest.raises(ValueError):
        score(examples(("closed", "yes")), ["yes", "no"])


def test_the_majority_is_taken_from_training() -> None:
    train = examples(("closed", "No"), ("closed", "no."), ("closed", "yes"), ("open", "ct"))
    test = examples(("closed", "yes"), ("closed", "no"), ("open", "ct"), ("open", "mri"))
    assert majority_answers(train) == {"closed": "no", "open": "ct"}
    assert majority_baseline(train, test)["overall"] == 50


def test_equally_frequent_answers_are_settled_by_letter() -> None:
    assert majority_answers(examples(("closed", "yes"), ("closed", "no"))) == {"closed": "no"}


def test_collapsed_is_one_answer_for_each_type() -> None:
    asked = examples(*[("open", a) for a in ("ct", "mri")], *[("closed", a) for a in ("yes", "no")])
    assert has_collapsed(asked, ["ct", "CT", "yes", "yes"])
    assert not has_collapsed(asked, ["ct", "mri", "yes", "yes"])
    assert not has_collapsed(examples(("closed", "yes"), ("closed", "yes")), ["yes", "yes"])


def test_nearly_constant_is_collapsed() -> None:
    asked = examples(*[("closed", a) for a in ["yes", "no"] * 50])
    assert has_collapsed(asked, ["yes"] * 95 + ["no"] * 5)
    assert not has_collapsed(asked, ["yes"] * 94 + ["no"] * 6)


REPORTS = (
    "The heart is normal in size. The lungs are clear.",
    "There is a small effusion on the left. No pneumothorax.",
    "No acute disease.",
)


def test_a_report_is_cleaned_as_by_r2gen() -> None:
    assert reports.clean("1. Heart size normal; no effusion. 2. XXXX lungs are clear.") == (
        "heart size normal no effusion . xxxx lungs are clear ."
    )
    assert reports.clean("Follow-up... [T-spine] 3.5 cm, (l1/l2)") == (
        "follow-up . t-spine 35 cm l1l2 ."
    )
    assert reports.clean("") == ""


def test_a_report_earns_what_it_shares_and_is_no_accuracy() -> None:
    asked = examples(*(("report", text) for text in REPORTS), ("open", "ct"))
    told = [REPORTS[0].upper(), "There is an effusion on the right.", "", "ct"]
    scores = score(asked, told)
    earned = [100 * reports.rouge_l(t, r) for t, r in zip(told, REPORTS, strict=False)]
    assert earned[0] == pytest.approx(100) and 0 < earned[1] < 100 and earned[2] == 0
    assert scores["report"] == scores["rouge_l"] == pytest.approx(sum(earned) / 3)
    assert scores["open"] == scores["other"] == 100
    assert scores["overall"] == pytest.approx((sum(earned) + 100) / 4)
    assert all(answer_score(t, e) in (0, 1) for t, e in zip(told[2:], asked[2:], strict=True))


def test_scores_of_reports_follow_their_definitions() -> None:
    """BLEU after Papineni et al. 2002 and CIDEr after Vedantam et al. 2015, by hand."""
    asked = examples(("report", "a b c d e"), ("report", "f g h i j"))
    scores = score(asked, ["a b c d e", "f g h x y"])
    # With the point after each: 12 words, 10 right; pairs 10, 7 right; threes 8, 5; fours 6, 3.
    precisions = (10 / 12, 7 / 10, 5 / 8, 3 / 6)
    for n in range(1, 5):
        expected = math.prod(precisions[:n]) ** (1 / n)
        assert scores[f"bleu_{n}"] == pytest.approx(100 * expected, rel=1e-6)
    assert scores["rouge_l"] == pytest.approx((100 + 100 * 4 / 6) / 2)
    assert score(asked, ["a b c d e", "f g h i j"])["cider"] == pytest.approx(1000)
    assert 500 < scores["cider"] < 1000


def test_a_table_shows_what_was_asked_for() -> None:
    report, question = ("report", REPORTS[0]), ("open", "ct")
    for asked, expected in (
        ([question], ["overall", "open", "closed"]),
        ([report], ["report", "bleu_4", "cider"]),
        ([report, question], ["overall", "open", "closed", "report", "bleu_4", "cider"]),
    ):
        kinds = examples(*asked)  # type: ignore[arg-type]  # pairs, as they are written above
        assert list(shown_columns(score(kinds, [""] * len(kinds)))) == expected


def test_the_majority_report_is_the_most_frequent() -> None:
    train = examples(*(("report", text) for text in (*REPORTS, REPORTS[2])))
    test = examples(("report", REPORTS[2]), ("report", REPORTS[0]))
    assert majority_answers(train) == {"report": "no acute disease ."}
    overall = majority_baseline(train, test)["overall"]
    assert overall == pytest.approx(50 + 50 * reports.rouge_l(REPORTS[2], REPORTS[0]))


@pytest.mark.parametrize(
    ("predicted", "answer", "credit"),
    [
        ("Yes, it is.", "yes", 1),
        ("The answer is: **no**", "no", 1),
        ("There is no fracture.", "no", 1),
        ("There is a fracture. No doubt.", "yes", 0),
        ("Yes or no", "no", 0),
        ("It is a CT scan.", "ct", 1),
        ("Left lung. The", "the left lung", 1),
        ("lung", "left lung", 0),
        ("A lung, left", "left lung", 0),
        ("\u809d\u810f\u5728\u5de6\u8fb9\u3002", "\u809d\u810f", 1),
        ("", "yes", 0),
        ("", "a", 1),
    ],
)
def test_an_answer_counts_leniently_by_its_first_words(
    predicted: str, answer: str, credit: float
) -> None:
    (asked,) = examples(("closed", answer))
    assert lenient_score(predicted, asked) == credit
    assert lenient_score(predicted, asked) >= answer_score(predicted, asked)
