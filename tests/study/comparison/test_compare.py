"""Studies on the same test questions are compared question by question; others are refused."""

import csv
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from study import compare as command
from study.analysis import results_file
from study.comparison import comparable
from study.comparison.compare import compare
from study.comparison.compared_types import StudyComparison
from study.protocol import planned
from study.reporting import comparison_page
from study.statistics.score_types import Claim, Finding
from study.storage.study_folder import SETTINGS, StudyFolder
from tests.study.comparison.stored import put
from tests.study.protocol.any_protocol import ANY
from tests.study.reporting.pages import Tags
from tests.study.reporting.test_page_in_a_browser import NEEDS_A_BROWSER, seen_of_page
from trainables.errors import BadInput

ARMS = ("lora", "layernorm", "full")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small`` and ``large`` have different base models: all methods do better with the large one,
    and LoRA more than others. ``searched`` has two searches of each arm."""
    folder = tmp_path_factory.mktemp("studies")
    put(folder, "small", chances={"lora": 0.6, "layernorm": 0.6, "full": 0.55})
    put(folder, "large", model="other", chances={"lora": 0.9, "layernorm": 0.7, "full": 0.65})
    put(folder, "searched", model="third", chances={}, searches=2)
    return folder


@pytest.fixture(scope="module")
def found(storage: Path) -> StudyComparison:
    return compare(comparable.read(str(storage), ["small", "large"]))


def mean_credits(storage: Path, study: str, arm: str) -> np.ndarray:
    """Mean credit of each answer of an arm's models."""
    folder = StudyFolder(storage=storage, name=study)
    (tested,) = (a for a in results_file.read(folder).arms if a.arm == arm)
    files = [folder.answers(seed.trial, "test") for seed in tested.seeds]
    return np.mean([pq.read_table(file)["credit"].to_pylist() for file in files], axis=0)


def test_arms_of_all_studies_are_ranked_and_all_pairs_corrected_together(
    found: StudyComparison,
) -> None:
    names = [arm.arm for arm in found.confirmed]
    assert {*names} == {f"{study}/{arm}" for study in ("small", "large") for arm in ARMS}
    means = [arm.overall.mean for arm in found.confirmed]
    assert names[0] == "large/lora" and means == sorted(means, reverse=True)
    assert [(c.first, c.second) for c in found.comparisons] == [*itertools.combinations(names, 2)]
    least = min(found.comparisons, key=lambda pair: pair.deciding.p)
    assert least.deciding.p_holm == pytest.approx(len(found.comparisons) * least.deciding.p)
    assert all(pair.parts["open"].p_holm >= pair.parts["open"].p for pair in found.comparisons)
    assert found.claim is Claim.MODELS and "This is about these tuned models" in found.verdict
    assert found.verdict.startswith("large/lora is better than every other arm.")
    assert found.leader is not None and found.leader.mean < means[0] + 1e-9


def test_a_difference_is_that_of_answers_to_the_same_questions(
    storage: Path, found: StudyComparison
) -> None:
    pair = next(c for c in found.comparisons if {c.first, c.second} == {"large/full", "small/lora"})
    apart_Q = mean_credits(storage, "large", "full") - mean_credits(storage, "small", "lora")
    sign = 1 if pair.first == "large/full" else -1
    assert pair.deciding.difference.mean == pytest.approx(sign * 100 * apart_Q.mean())
    # Hard questions are hard for both, so paired answers tell more than two single intervals.
    each = [arm.overall for arm in found.arms if arm.arm in (pair.first, pair.second)]
    apart = (sum((one.high - one.low) ** 2 for one in each)) ** 0.5
    assert pair.deciding.difference.high - pair.deciding.difference.low < 0.8 * apart


def test_answers_are_paired_by_question_whatever_their_order(
    storage: Path, found: StudyComparison, tmp_path: Path
) -> None:
    for name in ("small", "large"):
        (tmp_path / name).symlink_to(storage / name)
    (tmp_path / "large").unlink()
    turned = tmp_path / "large"
    turned.mkdir()
    for file in (storage / "large").rglob("*"):
        to = turned / file.relative_to(storage / "large")
        if file.is_dir():
            to.mkdir()
        elif file.name.endswith("-test.parquet"):
            table = pq.read_table(file)
            pq.write_table(table.take([*reversed(range(len(table)))]), to)
        else:
            to.write_bytes(file.read_bytes())
    assert compare(comparable.read(str(tmp_path), ["small", "large"])) == found


def test_how_two_methods_differ_with_two_bases(storage: Path, found: StudyComparison) -> None:
    assert len(found.interactions) == 3  # pairs of the three arms
    least = min(found.interactions, key=lambda each: each.p)
    assert least.p_holm == pytest.approx(3 * least.p)
    by_arms = {frozenset((i.first, i.second)): i for i in found.interactions}
    lora = by_arms[frozenset(("lora", "layernorm"))]
    sign = 1 if lora.first == "lora" else -1
    by_hand = [
        100
        * (mean_credits(storage, study, "lora") - mean_credits(storage, study, "layernorm")).mean()
        for study in (lora.study, lora.other_study)
    ]
    assert (sign * lora.one, sign * lora.other) == pytest.approx(by_hand)
    assert lora.difference.mean == pytest.approx(lora.one - lora.other)
    assert lora.shown and lora.sentence in found.verdict
    same = by_arms[frozenset(("layernorm", "full"))]
    assert not same.shown and same.difference.low < 0 < same.difference.high
    assert same.sentence.startswith("It is not shown that how")


def test_arms_that_were_searched_over_other_ranges_have_no_interaction(
    storage: Path, tmp_path: Path
) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        for file in (storage / name).iterdir():
            (tmp_path / name / file.name).symlink_to(file)
    begun = json.loads((storage / "large" / SETTINGS).read_text("utf-8"))
    begun["arms"]["lora"]["lr"] = "LogUniform(low=0.01, high=0.1)"
    (tmp_path / "large" / SETTINGS).unlink()
    (tmp_path / "large" / SETTINGS).write_text(json.dumps(begun), encoding="utf-8")
    other = compare(comparable.read(str(tmp_path), ["small", "large"]))
    assert {i.first for i in other.interactions} | {i.second for i in other.interactions} == {
        *ARMS
    } - {"lora"}
    assert "Arms of one name that were searched over other ranges: lora." in other.notes


def declaring(storage: Path, folder: Path, **against: str | None) -> Path:
    """A storage folder with studies that declared an arm against which the others are compared."""
    for name, arm in against.items():
        (folder / name).mkdir()
        for file in (storage / name).iterdir():
            if file.name != "results.json":
                (folder / name / file.name).symlink_to(file)
        results = results_file.read(StudyFolder(storage=storage, name=name))
        declared = results.protocol | ({"against": arm} if arm else {})
        results_file.write(folder / name, replace(results, protocol=declared))
    return folder


def test_where_all_studies_declared_one_reference_only_pairs_with_it_are_compared(
    storage: Path, found: StudyComparison, tmp_path: Path
) -> None:
    there = declaring(storage, tmp_path, small="layernorm", large="layernorm")
    by_one = compare(comparable.read(str(there), ["small", "large"]))
    assert by_one.against == "layernorm" and by_one.letters == {} and by_one.notes == found.notes
    pairs = {frozenset((c.first, c.second)): c.deciding for c in by_one.comparisons}
    references = {"small/layernorm", "large/layernorm"}
    assert len(pairs) == 9 and all(references & pair for pair in pairs)
    least = min(pairs.values(), key=lambda each: each.p)
    assert least.p_holm == pytest.approx(9 * least.p), "fewer tests to correct for than of 15 pairs"
    whole = {frozenset((c.first, c.second)): c.deciding for c in found.comparisons}
    assert all(whole[pair].p == pytest.approx(each.p, abs=0.02) for pair, each in pairs.items())
    assert len(by_one.interactions) == 2 < len(found.interactions)
    assert "and with no others, as declared. With " in by_one.verdict
    assert "With large/layernorm: large/lora: better" in by_one.verdict
    page = comparison_page.write(tmp_path / "out", by_one)[0].read_text("utf-8")
    text = Tags(page).text
    assert "Each arm with layernorm of its study, and layernorm of two studies" in text
    assert "The 4 other pairs of arms of two studies" in text and "of one study" not in text


@pytest.mark.parametrize(
    ("large", "line"),
    [
        (None, "(small each arm with layernorm, large all pairs), so all pairs of arms"),
        ("lora", "(small each arm with layernorm, large each arm with lora), so all pairs of arms"),
        ("dora", "large could not confirm the arm with which the others were to be compared, so"),
    ],
)
def test_where_studies_declared_other_references_all_pairs_are_compared_and_it_is_said(
    large: str | None, line: str, storage: Path, found: StudyComparison, tmp_path: Path
) -> None:
    there = declaring(storage, tmp_path, small="layernorm", large=large)
    every = compare(comparable.read(str(there), ["small", "large"]))
    assert every.comparisons == found.comparisons and every.against is None
    assert sum(line in note for note in every.notes) == 1


def test_methods_are_claimed_only_if_every_study_searched_several_times(
    storage: Path, tmp_path: Path
) -> None:
    mixed = compare(comparable.read(str(storage), ["searched", "large"]))
    assert mixed.claim is Claim.MODELS and mixed.notes == ()
    assert (
        "This is about these tuned models and not about the methods: each arm was searched 2 times "
        "in searched, but only once in large, and another search may end elsewhere."
    ) in mixed.verdict
    of_both = next(
        c for c in mixed.comparisons if {c.first, c.second} == {"large/full", "searched/full"}
    )
    assert of_both.deciding.seeds == 2 and of_both.deciding.finding is not Finding.BETTER
    text = Tags(comparison_page.write(tmp_path / "out", mixed)[0].read_text("utf-8")).text
    assert "or base models: searches of each arm: searched 2, large 1." in text
    assert "--searches 3 in large." in text and "images and seeds (searches in searched)" in text
    assert "of one search an arm" not in text


def test_of_studies_that_all_searched_several_times_the_claim_is_about_methods(
    storage: Path, tmp_path: Path
) -> None:
    for name in ("searched", "again"):
        (tmp_path / name).symlink_to(storage / "searched")
    (tmp_path / "again").unlink()
    put(tmp_path, "again", model="fourth", chances={}, searches=3)
    found = compare(comparable.read(str(tmp_path), ["searched", "again"]))
    assert found.claim is Claim.METHODS
    assert (
        "This is about the methods, each tuned with the budget of its study: how far apart their "
        "searches end is in the intervals. Each arm was searched 2 times in searched, 3 times in "
        "again."
    ) in found.verdict


def test_page_tables_and_json_have_the_same_numbers(
    storage: Path, found: StudyComparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    where = ("small", "large", "--storage", str(storage))
    assert command.main([*where, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert all(line in " ".join(shown.split()) for line in found.verdict.splitlines())
    assert str(out / "comparison.html") in shown
    page = Tags((out / "comparison.html").read_text("utf-8"))
    assert all(line in page.text for line in found.verdict.splitlines())
    assert page.outside == []
    assert page.tags.count("svg") == len(found.arms) + 3 + 1  # legend, parts, differences
    assert found.test_digest in page.text
    rows = [*csv.DictReader(io.StringIO((out / "arms.csv").read_text("utf-8")))]
    assert (rows[0]["study"], rows[0]["arm"]) == ("large", "lora")
    assert rows[0]["group"] == "a" and "a" not in rows[1]["group"], "it is better than all others"
    assert "Group: arms that have a letter in common" in page.text
    assert float(rows[0]["overall_mean"]) == found.confirmed[0].overall.mean
    told = [*csv.DictReader(io.StringIO((out / "interactions.csv").read_text("utf-8")))]
    assert [float(row["mean"]) for row in told] == [i.difference.mean for i in found.interactions]
    latex = (out / "comparison.tex").read_text("utf-8")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3
    assert "large & lora & a & " in latex and "have a letter in common" in latex
    assert command.main([*where, "--json"]) == 0
    plain: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert plain == json.loads((out / "comparison.json").read_text("utf-8"))
    assert plain["arms"][0]["test"]["overall"]["mean"] == found.confirmed[0].overall.mean


@NEEDS_A_BROWSER
def test_a_browser_draws_it(found: StudyComparison, tmp_path: Path) -> None:
    seen = seen_of_page(comparison_page.write(tmp_path / "out", found)[0], tmp_path)
    assert seen["figures"] == seen["drawn"] == 3 + 1
    assert seen["colours"] == len(found.arms)
    assert "overall: " in seen["told"] and seen["chosen"] > 0 and seen["dimmed"]


def changed(storage: Path, tmp_path: Path, **fields: Any) -> Path:
    """A storage folder with ``small`` and a ``large`` whose results have other fields."""
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        for file in (storage / name).iterdir():
            if (name, file.name) != ("large", "results.json"):
                (tmp_path / name / file.name).symlink_to(file)
    results = results_file.read(StudyFolder(storage=storage, name="large"))
    results_file.write(tmp_path / "large", replace(results, **fields))
    return tmp_path


def refused(storage: Path, *names: str) -> str:
    with pytest.raises(BadInput) as raised:
        comparable.read(str(storage), names)
    line = str(raised.value)
    assert "\n" not in line
    return line


def test_studies_of_other_questions_are_refused(storage: Path) -> None:
    put(storage, "others", chances={}, images_a_patient=0, asked=80)
    line = refused(storage, "small", "others")
    assert "study 'others' has test questions" in line and "(320), and 'small' " in line


def test_studies_that_were_decided_otherwise_are_refused(storage: Path, tmp_path: Path) -> None:
    results = results_file.read(StudyFolder(storage=storage, name="large"))
    settings = {**results.protocol["settings"], "margin": 2.0}
    other = changed(storage, tmp_path, protocol={**results.protocol, "settings": settings})
    assert refused(other, "small", "large") == (
        "study 'large' has the margin 2, and 'small' 1: studies are compared by one margin "
        "(--margin)"
    )


def test_studies_that_were_scored_by_older_rules_are_refused(storage: Path, tmp_path: Path) -> None:
    other = changed(storage, tmp_path, scoring=1)
    assert "--resume large scores it anew" in refused(other, "small", "large")


def test_a_study_without_confirmed_arms_is_refused(storage: Path, tmp_path: Path) -> None:
    results = results_file.read(StudyFolder(storage=storage, name="large"))
    none = tuple(replace(arm, test=None, seeds=()) for arm in results.arms)
    other = changed(storage, tmp_path, arms=none, comparisons=(), leader=None)
    assert refused(other, "small", "large").startswith("study 'large' has no confirmed arm")


def test_studies_of_other_images_are_refused(storage: Path, tmp_path: Path) -> None:
    other = changed(storage, tmp_path)
    planned.write(ANY, other / "small")
    comparable.read(str(other), ["small", "large"])  # of the other it is not known
    planned.write(ANY, other / "large")
    comparable.read(str(other), ["small", "large"])
    planned.write(replace(ANY, test=replace(ANY.test, images_digest="2" * 64)), other / "large")
    line = refused(other, "small", "large")
    assert line.startswith("study 'large' was asked the same questions about other images")


def test_copies_of_one_study_are_refused(storage: Path, tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    for name in ("small", "large"):
        done = results_file.read(StudyFolder(storage=storage, name=name))
        own = replace(done, protocol={**done.protocol, "identity": "5eed"})
        (tmp_path / "copies" / name).mkdir()
        for file in (storage / name).iterdir():
            (tmp_path / "copies" / name / file.name).symlink_to(file)
        (tmp_path / "copies" / name / "results.json").unlink()
        results_file.write(tmp_path / "copies" / name, own)
    line = refused(tmp_path / "copies", "small", "large")
    assert line == "studies 'small' and 'large' are copies of one study"


def test_a_comparison_takes_two_studies_or_more(storage: Path) -> None:
    assert refused(storage, "small").startswith("only one study is given")
    assert refused(storage, "small", "small").startswith("study 'small' is given 2 times")
    assert "did you mean 'large'?" in refused(storage, "small", "larg")


def test_patients_are_kept_with_the_answers(tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path, name, model=name, chances={}, images_a_patient=5)
    found = compare(comparable.read(str(tmp_path), ["one", "two"]))
    assert (found.unit, found.units) == ("patients", 20)


def test_answers_that_are_lost_or_of_other_questions_are_refused(
    storage: Path, tmp_path: Path
) -> None:
    other = changed(storage, tmp_path)
    (other / "large" / "answers").unlink()
    (other / "large" / "answers").mkdir()
    for file in (storage / "large" / "answers").iterdir():
        (other / "large" / "answers" / file.name).symlink_to(file)
    results = results_file.read(StudyFolder(storage=storage, name="large"))
    file = other / "large" / "answers" / f"{results.arms[1].seeds[0].trial}-test.parquet"
    table = pq.read_table(file)
    file.unlink()
    with pytest.raises(BadInput, match="parquet is damaged"):
        compare(comparable.read(str(other), ["small", "large"]))
    pq.write_table(table.slice(1), file)
    with pytest.raises(BadInput, match="has answers to other questions"):
        compare(comparable.read(str(other), ["small", "large"]))
