"""What can be wrong with an export or a prediction is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study import export, predict

ARM = {"arm": "lora", "seeds": [{"seed": 1, "trial": "abc"}]}
TRIAL = {"trial": "abc", "rungs": [{"validation_loss": 1.0}], "recipe": {}, "seed": 1}
PROTOCOL = {
    "settings": {"model": "tiny"},
    "model": {"digest": "0" * 64},
    "precision": "fp32",
    "command": "python -m study.launch --tracking-uri http://study:planted@mlflow",
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
    ],
)
def test_what_cannot_be_exported(
    arguments: list[str], said: str, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([*arguments, "--storage", str(storage)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


def test_the_command_of_an_older_study_is_read_without_its_password(storage: Path) -> None:
    command = export.read_results(storage, "done")["protocol"]["command"]
    assert command == "python -m study.launch --tracking-uri http://study:***@mlflow"


def test_what_cannot_be_asked(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = ["--question", "is this a ct ?"]
    image = storage / "image.png"
    assert predict.main([str(storage), "--image", str(image), *question]) == 2
    assert f"--image {image} is not a file" in capsys.readouterr().err
    image.write_bytes(b"")
    assert predict.main([str(storage), "--image", str(image), *question]) == 2
    assert f"{storage} holds no exported model" in capsys.readouterr().err
