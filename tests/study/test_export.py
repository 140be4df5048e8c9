"""What can be wrong with an export or a prediction is said in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from study import export, predict
from study.analysis import results_file
from study.analysis.result_types import StudyResults
from study.reporting import model_export
from study.storage.study_folder import StudyFolder
from study.trials.spec import Kind
from tests.trainables import made_llava
from tests.trainables.cut_short import cut
from trainables.export import tuned_model
from trainables.export.tuned_json import Description
from trainables.models import llava
from trainables.training import checkpoint

GONE = object()
"""Value that stands for a key that is taken out."""
COMMAND = "python -m study.launch --tracking-uri http://study:planted@mlflow"


def write_results(found: StudyResults, folder: Path, arm: str = "lora", trial: str = "abc") -> None:
    """Write results of a study of two arms: one with one confirmation, and ``ia3`` with none."""
    confirmed = next(a for a in found.arms if a.arm == "lora")
    lost = next(a for a in found.arms if a.test is None)
    seed = replace(confirmed.seeds[0], trial=trial)
    done = replace(
        found,
        study=folder.name,
        arms=(replace(confirmed, arm=arm, seeds=(seed,)), replace(lost, arm="ia3")),
        trials=(
            replace(
                next(t for t in found.trials if t.kind is Kind.CONFIRM), trial=trial, recipe={}
            ),
        ),
        comparisons=(),
        ood=(),
        efficiency=replace(found.efficiency, budget=None),
        protocol={**found.protocol, "command": COMMAND},
    )
    results_file.write(folder, done)


@pytest.fixture
def storage(found: StudyResults, tmp_path: Path) -> Path:
    """A finished study whose checkpoints are gone, and one that has not ended."""
    (tmp_path / "done").mkdir()
    write_results(found, tmp_path / "done")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "study.json").write_text("{}")
    return tmp_path


def test_a_study_that_runs_is_not_told_to_be_resumed(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StudyFolder(storage=storage, name="begun").only_driver():
        assert export.main(["begun", "--storage", str(storage)]) == 2
    said = "error: study 'begun' is still running; study.status says how far it is\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dome"], "unknown study 'dome'; did you mean 'done'? There are: done"),
        (["begun"], "study 'begun' has not ended; --resume begun goes on with it"),
        (
            ["done", "--arm", "lorra"],
            "there is no arm 'lorra' in study done; did you mean 'lora'? it has: lora, ia3",
        ),
        (["done", "--arm", "../../x"], "there is no arm '../../x' in study done; it has: lora"),
        (["done", "--arm", "ia3"], "arm 'ia3' was not confirmed"),
        (["done"], "study 'done' holds no checkpoint of trial abc"),
        (["../done"], "unknown study '../done'; did you mean 'done'?"),
        (["done", "--out", "."], "--out . names no folder of its own"),
        (["done", "--out", "/"], "--out / names no folder of its own"),
        (["done", "--out", __file__], f"--out {__file__} names no folder of its own"),
        (["done", "--out", f"{__file__}/x"], f"cannot write to --out {__file__}/x: Not a dir"),
    ],
)
def test_what_cannot_be_exported(
    arguments: list[str], said: str, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([*arguments, "--storage", str(storage)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


def test_an_export_may_go_where_a_link_leads_and_one_that_is_interrupted_leaves_nothing(
    found: StudyResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder cannot be renamed to the name of a link."""

    def write(*given: Any) -> dict[str, Path]:
        (given[-1] / "tuned.json").write_text("{}")
        if interrupted:
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr(model_export, "write", write)
    arm = next(each for each in found.arms if each.seeds)
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    for interrupted in (False, True):
        with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
            model_export.export(StudyFolder.from_path(tmp_path), found, arm, tmp_path / "out")
        assert (tmp_path / "out").is_symlink() and (tmp_path / "real" / "tuned.json").is_file()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "real"]


def test_the_command_of_an_older_study_is_read_without_its_password(storage: Path) -> None:
    done = results_file.read(StudyFolder(storage=storage, name="done"))
    command = done.protocol["command"]
    assert command == "python -m study.launch --tracking-uri http://study:***@mlflow"


@pytest.mark.parametrize(
    ("arm", "trial", "said"),
    [
        ("../../x", "abc", "'../../x' cannot name a file in"),
        ("lora", "../../other/checkpoints/abc", "'../../other/checkpoints/abc' cannot name a file"),
    ],
)
def test_results_that_lead_out_of_the_study_are_refused(
    arm: str,
    trial: str,
    said: str,
    found: StudyResults,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    storage = tmp_path / "studies"
    kept = tmp_path / "studies" / "other" / "checkpoints" / "abc" / "000000000064"
    kept.mkdir(parents=True)
    (kept / "trained.safetensors").touch()
    (storage / "done" / "checkpoints").mkdir(parents=True)
    write_results(found, storage / "done", arm, trial)
    before = {path for path in tmp_path.rglob("*") if "export" not in path.parts}
    assert export.main(["done", "--storage", str(storage)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert {path for path in tmp_path.rglob("*") if "export" not in path.parts} == before


def test_results_that_are_no_json_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "results.json").write_text('{"arms": [')
    assert export.main(["done", "--storage", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'done' / 'results.json'} is no JSON:")


@pytest.mark.parametrize("broken", ["trained.safetensors", "manifest.json"])
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "of an earlier version"])
def test_a_checkpoint_that_is_cut_short_is_named(
    broken: str, listed: bool, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = storage / "done" / "checkpoints" / "abc" / "000000000064"
    folder.mkdir(parents=True)
    save_file({"w": torch.ones(9)}, folder / checkpoint.WEIGHTS)
    if listed:
        files = {checkpoint.WEIGHTS: checkpoint._digest(folder / checkpoint.WEIGHTS)}
        (folder / checkpoint.MANIFEST).write_text(json.dumps({"files": files}))
        assert list(checkpoint.weights(folder)) == ["w"]
    elif broken == checkpoint.MANIFEST:
        return
    cut(folder / broken, "by a byte")
    assert export.main(["done", "--storage", str(storage)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder / broken} is cut short or damaged (")


def test_what_cannot_be_asked(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = ["--question", "is this a ct ?"]
    image = storage / "image.png"
    assert predict.main([str(storage), "--image", str(image), *question]) == 2
    assert f"--image {image} is not a file" in capsys.readouterr().err
    image.write_bytes(b"")
    assert predict.main([str(storage), "--image", str(image), *question]) == 2
    assert f"{storage} holds no exported model" in capsys.readouterr().err
    (storage / "tuned.json").write_text(json.dumps(DESCRIBED))
    save_file({"w": torch.ones(9)}, storage / "trained.safetensors")
    for name, said in (
        ("trained.safetensors", f"{storage} holds no exported model: {{}} can't be read ("),
        ("tuned.json", "{} is no JSON: "),
    ):
        cut(storage / name, "by a byte")
        assert predict.main([str(storage), "--image", str(image), *question]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {said.format(storage / name)}")


def test_a_word_for_the_image_is_left_out_as_in_training_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = made_llava.write(tmp_path / "model"), tmp_path / "out"
    model = llava.load(folder)
    described = Description(
        model=str(folder),
        digest=model.digest,
        recipe={"vision": {"method": "frozen"}},
        seed=0,
        precision="fp32",
        image_size=model.image_size,
    )
    out.mkdir()
    tuned_model.build(described, {}, model).save(out)
    Image.new("RGB", (40, 50)).save(tmp_path / "image.png")
    asked = [str(out), "--image", str(tmp_path / "image.png"), "--question"]
    assert predict.main([*asked, "is this a ct ?"]) == 0
    plain = capsys.readouterr()
    assert predict.main([*asked, "<image>is this a ct ?"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == plain.out.splitlines()[-1]
    told = "note: <image>: left out of what was asked, as in training, since the image is put in"
    assert told in said.err and told not in plain.err


DESCRIBED = {"model": "tiny", "digest": "", "recipe": {}, "seed": 0, "precision": "fp32"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, " is of version 2; this reads 1"),
        ({"seed": "first"}, ": seed should be a whole number, not 'first'"),
        ({"recipe": "lora"}, ": recipe should be an object, not 'lora'"),
        ({"recipe": {"vision": {"rank": 2}}}, ": recipe.vision names no method"),
        ({"beams": None}, ": beams should be a whole number, not null"),
        ({"digest": GONE}, " lacks digest"),
    ],
)
def test_a_wrong_field_of_an_export_is_named_before_anything_heavy_is_imported(
    changed: dict[str, object], said: str, tmp_path: Path
) -> None:
    described = {k: v for k, v in {**DESCRIBED, **changed}.items() if v is not GONE}
    (tmp_path / "tuned.json").write_text(json.dumps(described))
    (tmp_path / "image.png").touch()
    probe = (
        "import sys; from study import predict; code = predict.main(sys.argv[1:]); "
        "print(code, 'torch' in sys.modules)"
    )
    asked = [str(tmp_path), "--image", str(tmp_path / "image.png"), "--question", "?"]
    done = subprocess.run(
        [sys.executable, "-c", probe, *asked], check=True, capture_output=True, text=True
    )
    assert done.stdout == "2 False\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'tuned.json'}{said}")
