"""What can be wrong with an export or a prediction is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from study import export, predict
from study.analysis import results_file
from tests.trainables.cut_short import cut
from trainables.training import checkpoint

ARM = {"arm": "lora", "seeds": [{"seed": 1, "trial": "abc"}]}
TRIAL = {"trial": "abc", "rungs": [{"validation_loss": 1.0}], "recipe": {}, "seed": 1}
PROTOCOL = {
    "settings": {"model": "tiny", "image_size": None},
    "model": {"digest": "0" * 64},
    "precision": "fp32",
    "command": "python -m study.launch --tracking-uri http://study:planted@mlflow",
    "answer_tokens": 10,
    "beams": 1,
}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A finished study whose checkpoints are gone, and one that has not ended."""
    (tmp_path / "done").mkdir()
    found = {"arms": [ARM, {"arm": "ia3", "seeds": []}], "trials": [TRIAL], "protocol": PROTOCOL}
    (tmp_path / "done" / "results.json").write_text(json.dumps(found))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "study.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dome"], "unknown study 'dome'; did you mean 'done'? There are: done"),
        (["begun"], "study 'begun' has not ended; --resume begun goes on with it"),
        (["done", "--arm", "lorra"], "unknown arm 'lorra'; did you mean 'lora'?"),
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


def test_the_command_of_an_older_study_is_read_without_its_password(storage: Path) -> None:
    command = results_file.read_results(storage, "done")["protocol"]["command"]
    assert command == "python -m study.launch --tracking-uri http://study:***@mlflow"


@pytest.mark.parametrize(
    ("arm", "trial", "said"),
    [
        ("../../x", "abc", "'../../x' cannot name a file in"),
        ("lora", "../../other/checkpoints/abc", "'../../other/checkpoints/abc' cannot name a file"),
    ],
)
def test_results_that_lead_out_of_the_study_are_refused(
    arm: str, trial: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "studies"
    kept = tmp_path / "studies" / "other" / "checkpoints" / "abc" / "000000000064"
    kept.mkdir(parents=True)
    (kept / "trained.safetensors").touch()
    (storage / "done" / "checkpoints").mkdir(parents=True)
    arms = [{"arm": arm, "seeds": [{"seed": 1, "trial": trial}]}]
    found = {"arms": arms, "trials": [{**TRIAL, "trial": trial}], "protocol": PROTOCOL}
    (storage / "done" / "results.json").write_text(json.dumps(found))
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
    described = {"model": "tiny", "digest": "", "recipe": {}, "seed": 0, "precision": "fp32"}
    (storage / "tuned.json").write_text(json.dumps(described))
    save_file({"w": torch.ones(9)}, storage / "trained.safetensors")
    for name in ("trained.safetensors", "tuned.json"):
        cut(storage / name, "by a byte")
        assert predict.main([str(storage), "--image", str(image), *question]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"holds no exported model: {storage / name} can't be read (" in line
