"""``results.json`` of a made-up study: what was found, from records and kept answers alone."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from study import export, report
from study.analysis import results, results_file
from study.analysis.blind import blind_scores, calibration
from study.analysis.efficiency_types import FrontTrial
from study.analysis.result_types import StudyResults
from study.analysis.verdict import answer
from study.reporting import page as report_page
from study.reporting import table_files
from study.reporting.terminal import show_results
from study.search.arm_gains import NOTHING
from study.statistics.score_types import Finding
from study.statistics.uncertainty import holm
from study.storage.study_folder import ARMS_TABLE, StudyFolder
from study.trials.gain import GainUnit, RemainingGain
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind, TrialSpec
from tests.study.finished import SPACE, bitfit, collected, dataset
from trainables.training.blind import BLIND


def test_arms_come_the_best_first_and_who_was_not_confirmed_last(found: StudyResults) -> None:
    arms = found.arms
    assert {arms[0].arm, arms[1].arm} == {"lora", "layernorm"}
    assert [arm.arm for arm in arms[2:]] == ["full", "ia3", "bitfit"]
    assert arms[-1].test is None and arms[-1].best is None
    means = [arm.overall.mean for arm in arms[:-1]]
    assert means == sorted(means, reverse=True)
    for arm in arms[:-1]:
        seeds = [seed.scores["overall"] for seed in arm.seeds]
        assert arm.overall.mean == pytest.approx(sum(seeds) / len(seeds))


def test_every_pair_is_compared_in_every_part(found: StudyResults) -> None:
    assert len(found.comparisons) == 6
    for pair in found.comparisons:
        assert set(pair.parts) == {"overall", "open", "closed", "yes_no", "other"}
        assert pair.parts["overall"].questions == 400
        assert pair.parts["open"].questions == 200
    parts = [[c.parts[p].p for c in found.comparisons] for p in ("overall", "closed")]
    opened = [c.parts["open"] for c in found.comparisons]
    expected = holm([*(c.p for c in opened), *parts[0], *parts[1]])[: len(opened)]
    assert [c.p_holm for c in opened] == pytest.approx(expected)
    findings = {
        frozenset((c.first, c.second)): c.parts["overall"].finding for c in found.comparisons
    }
    assert findings[frozenset(("lora", "ia3"))] is Finding.BETTER
    assert findings[frozenset(("lora", "layernorm"))] is not Finding.BETTER


def test_the_verdict_names_the_best_and_says_less_of_the_second(found: StudyResults) -> None:
    assert found.verdict.startswith(f"{found.arms[0].arm} scores highest")
    assert "better than full and ia3" in found.verdict or "better than ia3" in found.verdict


def test_what_more_search_may_bring_is_said_wherever_an_arm_is_shown(found: StudyResults) -> None:
    assert "Not tuned to the end" not in found.verdict
    told = RemainingGain(mean=3.25, low=0.5, high=7.0, unit=GainUnit.POINTS)
    arms = [replace(arm, may_gain=told if arm.arm == "lora" else None) for arm in found.arms]
    said = "by its own trials more search may still bring lora 3.2 points (0.5 to 7.0)."
    assert f"Not tuned to the end: {said}" in answer(arms, found.comparisons, 20.0)
    assert "Not tuned" not in answer(arms, found.comparisons, 20.0, margin=3.25)
    others = [arm.arm for arm in arms if arm.test and arm.arm != "lora"]
    unknown = f"Too little is known of {', '.join(others[:-1])} and {others[-1]} to say what"
    assert unknown in answer(arms, found.comparisons, 20.0, estimated=True)
    assert "Too little" not in answer(arms, found.comparisons, 20.0)
    changed = replace(found, arms=tuple(arms))
    logged = results.metrics(changed)
    ends = ("", "_low", "_high")
    assert [logged[f"lora.may_gain_points{end}"] for end in ends] == [3.25, 0.5, 7.0]
    rows = csv.DictReader(io.StringIO(table_files.texts(changed)[ARMS_TABLE]))
    (row,) = (row for row in rows if row["arm"] == "lora")
    assert (row["may_gain_mean"], row["may_gain_unit"]) == ("3.25", "points")
    console = Console(record=True, width=200, file=io.StringIO())
    show_results(console, changed)
    shown = console.export_text()
    assert "may still gain" in shown and "3.2 (0.5 to 7.0)" in shown
    in_loss = replace(told, unit=GainUnit.LOSS, mean=0.0321)
    arms = [replace(arm, may_gain=in_loss) for arm in found.arms]
    assert "Not tuned" not in answer(arms, found.comparisons, 20.0)
    falls = "More search may still lower the validation loss: lora by 0.032 (0.500 to 7.000)"
    arms = [replace(arm, may_gain=in_loss if arm.arm == "lora" else NOTHING) for arm in found.arms]
    assert f"{falls}. What that is worth in points" in answer(arms, found.comparisons, 20.0)
    arms = [replace(arm, may_gain=NOTHING) for arm in found.arms]
    assert "may still" not in answer(arms, found.comparisons, 20.0)
    arms = [replace(arm, may_gain=in_loss) for arm in found.arms]
    assert results.metrics(replace(found, arms=tuple(arms)))["full.may_gain_loss"] == 0.0321


def test_another_dataset_is_reported_like_the_test_split(found: StudyResults) -> None:
    (other,) = found.ood
    assert other.data == "other set" and len(other.arms) == 4
    assert len(other.comparisons) == 6
    assert (other.baselines.untuned or {})["overall"] > 0


def test_efficiency_is_of_the_same_arms(found: StudyResults) -> None:
    efficiency = found.efficiency
    best = found.arms[0].arm
    assert all(best in front for front in efficiency.pareto.values())
    assert "full" not in efficiency.pareto["trained_parameters"]
    assert set(efficiency.budget.arms) == {"lora", "layernorm", "full", "ia3"}
    assert efficiency.learning_rates["bitfit"] is None
    assert {entry.of for entry in efficiency.importance} <= {"all arms", "lora"}
    good = efficiency.learning_rates["lora"]
    assert good.low <= good.best <= good.high


def test_what_is_written_is_read_again(found: StudyResults, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    path = results_file.write(tmp_path / "one", found)
    study_folder = StudyFolder(storage=tmp_path, name="one")
    assert results_file.read(study_folder) == found
    text = path.read_text(encoding="utf-8")
    assert results_file.write(study_folder.path, results_file.read(study_folder)) == path
    assert path.read_text(encoding="utf-8") == text


def test_the_file_has_columns_beside_fixed_keys(found: StudyResults, tmp_path: Path) -> None:
    front = FrontTrial(
        trial="abc",
        arm="lora",
        parameters={"lora.rank": 2},
        validation_loss=1.25,
        validation_percent=None,
        costs={"peak_memory_gib": 0.5, "trained_parameters": 9000},
    )
    changed = replace(found, efficiency=replace(found.efficiency, front=(front,)))
    (tmp_path / "one").mkdir()
    written = json.loads(results_file.write(tmp_path / "one", changed).read_text("utf-8"))
    assert written["efficiency"]["front"] == [
        {
            "trial": "abc",
            "arm": "lora",
            "parameters": {"lora.rank": 2},
            "validation_loss": 1.25,
            "validation_percent": None,
            "peak_memory_gib": 0.5,
            "trained_parameters": 9000,
        }
    ]
    assert list(written["arms"][0]["seeds"][0])[:3] == ["seed", "trial", "overall"]
    assert results_file.read(StudyFolder(storage=tmp_path, name="one")) == changed


GONE = object()
"""Value that stands for a key that is taken out."""


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((), [], ": the whole should be an object, not []"),
        (("version",), 3, " is of version 3; this reads 1 and 2"),
        (("verdict",), GONE, " lacks verdict"),
        (("arms",), {"lora": {}}, ": arms should be a list, not {'lora': {}}"),
        (("arms", 0, "costs", "seconds"), "x", ": arms[0].costs.seconds should be a number, not"),
        (("arms", 0, "seeds", 0, "seed"), GONE, " lacks arms[0].seeds[0].seed"),
        (("arms", 0, "collapsed"), 7, ": arms[0].collapsed should be true or false, not 7"),
        (("trials", 3, "kind"), "serach", ": trials[3].kind should be 'search', 'confirm' or 'un"),
        (("trials", 3, "outcome"), "lost", ": trials[3].outcome should be 'complete', "),
        (("trials", 0, "rungs", 0), 7, ": trials[0].rungs[0] should be an object, not 7"),
        (("protocol",), [], ": protocol should be an object, not []"),
        (("protocol", "command"), GONE, " lacks command"),
        (("protocol", "data", "findings"), "none", "data.findings should be a list, not 'none'"),
        (("arms", 0, "seeds", 0, "trial"), "gone", "trial 'gone' of arm "),
        (("arms", 0, "costs"), {}, " lacks trained_parameters"),
        (("arms", 0, "test", "overall", "low"), None, " has a test score without interval"),
        (("arms", 0, "test", "closed"), GONE, " lacks closed"),
        (("baselines", "majority", "open"), GONE, "baseline majority lacks open"),
        (("shown", "surprise"), "surprise %", " lacks surprise"),
        (("comparisons", 0, "first"), "nobody", "'nobody' is not in arms"),
        (("comparisons", 0, "parts", "overall"), GONE, " lacks overall"),
        (("ood", 0, "arms", 0, "test", "overall"), GONE, " lacks overall"),
        (("trials", 0, "arm"), "nobody", "'nobody' is not in arms"),
        (("efficiency", "pareto", "seconds"), GONE, "efficiency.pareto lacks seconds"),
    ],
)
def test_a_file_with_something_wrong_is_refused_in_one_line(
    path: tuple[str | int, ...],
    value: Any,
    said: str,
    found: StudyResults,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = results_file.plain(found)
    if path:
        inner = written
        for key in path[:-1]:
            inner = inner[key]
        if value is GONE:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
    else:
        written = value
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "results.json").write_text(json.dumps(written))
    for command in (report, export):
        assert command.main(["one", "--storage", str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and f"{tmp_path}/one/results.json" in line
        assert said in line


def test_fields_that_older_files_lack_have_defaults(found: StudyResults, tmp_path: Path) -> None:
    written = results_file.plain(found)
    del written["version"], written["ood"]
    del written["efficiency"]["front"], written["efficiency"]["importance"]
    for trial in written["trials"]:
        del trial["remark"]
    for arm in written["arms"]:
        del arm["confirmations"]
    written["protocol"].pop("identity", None)
    written["something"] = "that a later version may add"
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "results.json").write_text(json.dumps(written))
    older = results_file.read(StudyFolder(storage=tmp_path, name="one"))
    assert older.version == 2 and older.ood == () and older.efficiency.front == ()
    assert older.trials == found.trials
    assert report.main(["one", "--storage", str(tmp_path)]) == 0


def test_the_numbers_for_mlflow_are_numbers(found: StudyResults) -> None:
    numbers = results.metrics(found)
    assert numbers["lora.test.open_percent"] > 50
    assert numbers["lora.test.overall_as_the_best_percent"] < numbers["lora.test.overall_percent"]
    assert "majority.test.overall_percent" in numbers and "bitfit.test.open_percent" not in numbers
    assert all(isinstance(value, int | float) for value in numbers.values())


def test_the_images_of_a_patient_are_resampled_together(tmp_path: Path) -> None:
    """One image a patient changes nothing; 25 images a patient leave four, who say little."""
    space = replace(SPACE, arms={name: SPACE.arms[name] for name in ("lora", "ia3")})
    by_image, by_patient, of_four = (
        collected(_new(tmp_path / str(images)), space=space, trials=8, images_a_patient=images)
        for images in (0, 1, 25)
    )
    found = [one.comparisons[0].parts["overall"] for one in (by_image, by_patient, of_four)]
    assert found[0].difference == found[1].difference and found[0].p == found[1].p
    assert found[0].finding is Finding.BETTER and found[2].p > 0.1


def test_what_an_arm_owes_to_the_image_is_beside_its_score(
    found: StudyResults, tmp_path: Path
) -> None:
    arms = {arm.arm: arm for arm in found.confirmed}
    lora, ia3 = arms["lora"], arms["ia3"]
    assert lora.blind["blank"].score == 25.0  # always yes
    gain = lora.blind["blank"].gain
    assert gain.mean == pytest.approx(lora.overall.mean - 25.0)
    assert 0 < gain.low < gain.mean < gain.high and not lora.unseeing
    assert ia3.unseeing and ia3.blind["blank"].gain.mean == 0
    assert (
        "ia3 is not shown to answer better with the image than with a blank one." in found.verdict
    )
    assert results.metrics(found)["lora.blank.overall_percent"] == 25.0
    page = report_page.write(tmp_path, found)[0].read_text(encoding="utf-8")
    assert "Does it look at the image?" in page and "Calibration of lora" in page
    rows = {r["arm"]: r for r in csv.DictReader(io.StringIO(table_files.texts(found)[ARMS_TABLE]))}
    assert (rows["lora"]["blank_mean"], rows["ia3"]["swapped_gain_mean"]) == ("25.0", "0.0")


def test_confidence_is_compared_with_accuracy(found: StudyResults) -> None:
    lora = next(arm for arm in found.confirmed if arm.arm == "lora")
    assert lora.calibration is not None
    sure = next(each for each in lora.calibration.bins if each.confidence > 70)
    assert sure.confidence == pytest.approx(75) and sure.accuracy == 100
    assert sum(each.answers for each in lora.calibration.bins) == 2 * 200
    assert lora.calibration.error == pytest.approx(
        sum(seed.scores["ece"] or 0 for seed in lora.seeds) / 2
    )
    low, high = lora.calibration.low, lora.calibration.high
    assert low is not None and high is not None
    assert 0 <= low < lora.calibration.error <= high < 100
    rows = {r["arm"]: r for r in csv.DictReader(io.StringIO(table_files.texts(found)[ARMS_TABLE]))}
    assert (float(rows["lora"]["ece_low"]), float(rows["lora"]["ece_high"])) == (low, high)
    assert (
        f"ECE {lora.calibration.error:.1f}% ({low:.1f} to {high:.1f})"
        == f"ECE {lora.calibration.text}"
    )
    earlier = replace(lora.calibration, low=None, high=None)
    assert earlier.text == f"{lora.calibration.error:.1f}%"
    assert results.metrics(found)["untuned.test.auroc_percent"] > 0


def test_studies_of_earlier_versions_were_not_asked_so(tmp_path: Path) -> None:
    scores = {"test.overall": 50.0}
    spec = TrialSpec(
        kind=Kind.CONFIRM,
        arm="lora",
        parameters={},
        recipe={},
        lr=1.0,
        seed=0,
        max_examples=1,
        batch_size=1,
        stops=(),
        base="",
    )
    records = [TrialRecord(spec=spec, number=0, started_at=0.0, scores=scores)]
    assert blind_scores(StudyFolder.from_path(tmp_path), records, []) == {}
    now = {f"{way}.overall": 40.0 for way in BLIND} | scores  # the study went on by this version
    records.append(TrialRecord(spec=spec, number=1, started_at=0.0, scores=now))
    assert blind_scores(StudyFolder.from_path(tmp_path), records, []) == {}
    assert calibration(StudyFolder.from_path(tmp_path), records, dataset().test) is None


def _new(folder: Path) -> Path:
    """A folder that is made."""
    folder.mkdir()
    return folder


def test_another_measure_decides(tmp_path: Path) -> None:
    """Ranks, pairs, verdict, tables and MLflow go by it; accuracy stays beside it."""
    space = replace(SPACE, arms={name: SPACE.arms[name] for name in ("lora", "ia3")})
    found = collected(_new(tmp_path / "f1"), space=space, trials=8, measure="macro_f1")
    assert found.decides == "macro_f1" and list(found.shown)[:2] == ["macro_f1", "overall"]
    assert found.verdict.startswith("By macro f1: lora is better than ia3 by ")
    (pair,) = found.comparisons
    assert pair.deciding is pair.parts["macro_f1"] and pair.deciding.questions == 200
    best = found.confirmed[0]
    mean = sum(seed.scores["macro_f1"] or 0 for seed in best.seeds) / len(best.seeds)
    assert best.overall.mean == pytest.approx(mean) and best.overall.low < mean < best.overall.high
    assert results.metrics(found)["lora.test.macro_f1_percent"] == best.overall.mean
    assert found.baselines.majority["macro_f1"] == pytest.approx(100 / 3)
    results_file.write(tmp_path, found)
    assert json.loads((tmp_path / "results.json").read_text())["decides"] == "macro_f1"
    by_accuracy = collected(_new(tmp_path / "plain"), space=space, trials=8)
    deciding = by_accuracy.comparisons[0].parts["overall"]
    assert deciding.difference == pair.parts["overall"].difference
    assert deciding.p_holm == deciding.p, "the only pair by the measure that decides"
    others = [part for name, part in pair.parts.items() if name != "macro_f1"]
    assert max(part.p_holm / part.p for part in others) > 1, "the others are corrected for more"
    assert pair.parts["open"].p_holm >= by_accuracy.comparisons[0].parts["open"].p_holm


def test_collapse_is_a_result_of_its_own(tmp_path: Path) -> None:
    """One of two confirmations of each arm diverges."""

    def lost(spec: TrialSpec) -> Outcome | None:
        confirmed = spec.kind is Kind.CONFIRM and spec.seed == 2
        return Outcome.DIVERGED if confirmed and spec.arm == "lora" else bitfit(spec)

    found = collected(tmp_path, lost=lost)
    lora = next(arm for arm in found.arms if arm.arm == "lora")
    assert lora.collapse is not None and (lora.collapse.collapsed, lora.collapse.seeds) == (1, 2)
    assert (lora.collapse.rate.low, lora.collapse.rate.high) == pytest.approx((1.26, 98.7), abs=0.1)
    assert lora.collapse.otherwise == lora.overall
    assert (
        "Training of lora collapsed with 1 of 2 seeds, which is compatible with a rate of 1 to"
        in (found.verdict)
    )
    others = [arm.collapse for arm in found.confirmed if arm is not lora]
    assert all(each and each.collapsed == 0 and each.rate.high > 77 for each in others)
