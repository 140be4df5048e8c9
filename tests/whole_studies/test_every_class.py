"""A study of each class of models, from the command line to adapters that plain peft loads.

``pytest tests/whole_studies/test_every_class.py -m "slow or by_hand"`` runs all of them, in
about ten minutes.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText

from study import export, predict
from tests.study.command_line import launch, results
from tests.trainables import made_image_text, made_llava, plain_transformers
from tests.trainables.made_image_text import SIZE
from trainables.errors import printable

CLASSES = ("llava", *made_image_text.CLASSES)
IN_CI = ("qwen2_5_vl",)
QUESTIONS = ("is this a ct ?", "where is the lesion ?", "where ?", "is this an mri of the head ?")
AUTO: Any = AutoModelForImageTextToText


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind in IN_CI else pytest.mark.by_hand)
        for kind in CLASSES
    ],
)
def test_a_study_ends_in_models_that_plain_peft_loads(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loaded as their cards say, they answer the same through the class's own processor, and not as
    the base does."""
    folder = tmp_path / "model"
    make = made_llava.write if kind == "llava" else made_image_text.write
    make(folder, *(() if kind == "llava" else (kind,)))
    budget = ("--trials", "2", "--max-examples", "64", "--seeds", "1", "--precision", "fp32")
    asked = ("--space", "layernorm_vs_lora", "--model", str(folder), "--image-size", str(SIZE))
    asked += ("--set", "lr=0.01..0.03")  # or so few steps might change no answer
    shown = launch(tmp_path, *asked, *budget, "--name", "s")
    assert re.search(r"in 2 of\s+2\b", shown)  # layers that a method reached
    found = results(tmp_path, "s")
    assert {t["outcome"] for t in found["trials"]} == {"complete"}
    assert {arm["arm"] for arm in found["arms"] if arm["seeds"]} == {"layernorm", "lora"}

    image = tmp_path / "image.png"
    drawn = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(drawn).save(image)
    ask = plain_transformers.asks(folder, found["protocol"]["answer_tokens"], SIZE)
    # ``study.predict`` prints what a random model writes so that no terminal obeys it.
    untuned = [printable(ask(AUTO.from_pretrained(folder).eval(), image, q)) for q in QUESTIONS]
    for arm in ("lora", "layernorm"):
        out = tmp_path / arm
        where = ("--storage", str(tmp_path), "--out", str(out))
        assert export.main(["s", "--arm", arm, *where]) == 0
        capsys.readouterr()
        put = [part for q in QUESTIONS for part in ("--question", q)]
        assert predict.main([str(out), "--image", str(image), *put]) == 0
        ours = capsys.readouterr().out.removesuffix("\n").split("\n")
        code = (out / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
        loaded: dict[str, Any] = {"base": AUTO.from_pretrained(folder).eval()}
        exec(code.replace("DIR", str(out)), loaded)
        assert isinstance(loaded["base"], PeftModel) == (arm == "lora")
        assert [printable(ask(loaded["base"].eval(), image, q)) for q in QUESTIONS] == ours
        assert ours != untuned, arm
