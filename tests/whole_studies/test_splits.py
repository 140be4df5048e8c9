"""A whole study of several splits of its data, through the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from study import compare, export
from tests.study.command_line import launch, results, runs
from tests.trainables import made_llava
from tests.trainables.data.small import jsonl

pytestmark = pytest.mark.slow


def scores_of(found: dict[str, Any]) -> dict[str, Any]:
    """Trial -> its split and scores."""
    return {trial["trial"]: (trial["search"], trial["scores"]) for trial in found["trials"]}


def test_each_arm_is_searched_and_tested_in_each_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slow because it trains: six searches of a trial, and six confirmations. Then the study is as
    a kill would leave it during the last confirmation, and goes on."""
    model = made_llava.write(tmp_path / "model", initializer_range=0.2)
    (tmp_path / "data").mkdir()
    jsonl.write(tmp_path / "data")
    asked = ("--space", "smoke", "--model", str(model), "--seeds", "1", "--trials", "6")
    asked += ("--data", "jsonl", "--data-root", str(tmp_path / "data"), "--split", "by_image")
    asked += ("--splits", "3", "--max-examples", "32", "--concurrency", "3", "--name", "split")
    said = " ".join(launch(tmp_path, *asked).split())
    assert "3 divisions of the data by image, with" in said and "protocol as planned" in said
    assert "confirm 2 arms x 3 splits x 1 seed = 6 trainings" in said
    assert "3 times the confirmations, and the trials are divided among the splits" in said
    assert "shows no arm to be better, since no interval over splits" in said
    assert "No arm is called better from 3 splits of the same data" in said

    found = results(tmp_path, "split")
    assert (found["claim"], found["searches"]) == ("splits", 3)
    assert {trial["outcome"] for trial in found["trials"]} == {"complete"}
    tested = [t for t in found["trials"] if t["kind"] == "confirm"]
    assert sorted((t["arm"], t["search"]) for t in tested) == [
        (arm, split) for arm in ("layernorm", "lora") for split in range(3)
    ]
    (pair,) = found["comparisons"]
    overall = pair["parts"]["overall"]
    means = {arm["arm"]: arm["test"]["overall"]["mean"] for arm in found["arms"]}
    assert overall["difference"]["mean"] == pytest.approx(
        means[pair["first"]] - means[pair["second"]]
    )
    assert overall["finding"] == "undecided" and found["baselines"]["untuned"]

    protocol = json.loads((tmp_path / "split" / "protocol.json").read_text())
    splits = protocol["splits"]
    assert protocol["claim"] == "splits" and len(splits) == 3
    assert splits[0]["test"] == protocol["test"]
    assert len({split["test"]["digest"] for split in splits}) == 3
    of_split = {
        run.data.params.get("split", "0"): {i.dataset.digest for i in run.inputs.dataset_inputs}
        for run in runs(tmp_path, "smoke")
        if run.data.tags["kind"] == "confirm"
    }
    assert {number: len(digests) for number, digests in of_split.items()} == {
        "0": 1,
        "1": 1,
        "2": 1,
    }
    assert len(set.union(*of_split.values())) == 3

    (tmp_path / "split" / "results.json").unlink()
    journal = tmp_path / "split" / "optuna.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(place for place, line in enumerate(lines) if b'"begin"' in line)
    journal.write_bytes(b"".join(lines[: last + 1]))
    again = " ".join(launch(tmp_path, "--resume", "split", "--concurrency", "1").split())
    assert "protocol as planned" in again
    assert scores_of(results(tmp_path, "split")) == scores_of(found)

    where = ("--storage", str(tmp_path))
    assert export.main(["split", *where, "--out", str(tmp_path / "exported")]) == 0
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "in 3 splits of the data, of which this model is of the first" in card
    capsys.readouterr()
    shutil.copytree(tmp_path / "split", tmp_path / "split2")
    assert compare.main(["split", "split2", *where]) == 2
    assert "'split' has 3 splits of its data, each with test questions" in capsys.readouterr().err
