"""Whole studies through the command line, of other models and data than those that ship."""

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from study import export, predict
from tests.study.command_line import REPOSITORY, command, launch, results, runs
from tests.trainables import made_image_text, made_llava
from tests.trainables.data.small import iu_xray, jsonl
from tests.trainables.quantised import needs_bitsandbytes
from trainables.data.common.wording import BRIEF

pytestmark = pytest.mark.slow
VQA_RAD = REPOSITORY.parent / "shared" / "data" / "vqa_rad"


@pytest.mark.skipif(not VQA_RAD.is_dir(), reason="VQA-RAD is not beside this repository")
def test_a_study_on_real_questions(tmp_path: Path) -> None:
    budget = ("--trials", "2", "--max-examples", "64", "--seeds", "1")
    data = ("--data", "vqa_rad", "--data-root", str(VQA_RAD))
    launch(tmp_path, "--space", "layernorm_vs_lora", *data, *budget, "--name", "real")
    found = results(tmp_path, "real")
    assert found["protocol"]["data"]["questions"]["test"] == 451
    assert all(t["outcome"] == "complete" for t in found["trials"])


def test_winners_are_scored_on_data_they_never_trained_on(tmp_path: Path) -> None:
    """By another measure than accuracy, and of two searches of each arm, too."""
    (tmp_path / "data" / "jsonl").mkdir(parents=True)
    jsonl.write(tmp_path / "data" / "jsonl")
    budget = ("--trials", "4", "--max-examples", "64", "--seeds", "1", "--searches", "2")
    data = (
        "--measure",
        "macro_f1",
        "--ood",
        "jsonl",
        "--data-root",
        str(tmp_path / "data"),
        "--split",
        "by_image",
    )
    shown = launch(tmp_path, "--space", "smoke", *data, *budget, "--name", "elsewhere")
    assert "On jsonl, never trained on: " in shown
    found = results(tmp_path, "elsewhere")
    (elsewhere,) = found["ood"]
    assert elsewhere["data"] == "jsonl"
    assert {arm["arm"] for arm in elsewhere["arms"]} == {"layernorm", "lora"}
    for arm in elsewhere["arms"]:
        assert 0 <= arm["test"]["overall"]["low"] <= arm["test"]["overall"]["high"] <= 100
    said = " ".join(shown.split())
    assert "macro f1 %" in said and "By macro f1: " in said and "protocol as planned" in said
    assert "This is about the methods" in said and found["claim"] == "methods"
    assert {arm["arm"]: len(arm["seeds"]) for arm in found["arms"]} == {"layernorm": 2, "lora": 2}
    f1 = {arm["arm"]: arm["test"]["macro_f1"]["mean"] for arm in found["arms"]}
    (pair,) = found["comparisons"]
    apart = pair["parts"]["macro_f1"]["difference"]
    assert apart["mean"] == pytest.approx(f1[pair["first"]] - f1[pair["second"]])
    assert apart["low"] <= apart["mean"] <= apart["high"]
    for trial in results(tmp_path, "elsewhere")["trials"]:
        assert ("ood.jsonl.overall" in trial["scores"]) == (trial["kind"] != "search")


@pytest.mark.parametrize("kind", [pytest.param("llava", marks=pytest.mark.by_hand), "qwen2_5_vl"])
def test_a_study_on_a_base_in_four_bits(kind: str, tmp_path: Path) -> None:
    """From the command line to an exported model that answers. Hosts are forked with the base."""
    needs_bitsandbytes()
    folder = tmp_path / "model"
    if kind == "llava":
        made_llava.write(folder, dtype=torch.bfloat16)
    else:
        made_image_text.write(folder, kind)
    budget = ("--trials", "4", "--max-examples", "64", "--seeds", "1", "--concurrency", "4")
    asked = ("--space", "smoke", "--model", str(folder), "--image-size", "32", "--base-bits", "4")
    shown = launch(tmp_path, *asked, *budget, "--precision", "bf16", "--name", "bits")
    said = " ".join(shown.split())
    assert "base in 4 bits (NF4): 12 of 12" in said if kind == "llava" else "in 4 bits" in said
    assert "(not lm_head); embeddings, heads, norms and convolutions as they are" in said
    found = results(tmp_path, "bits")
    assert {t["outcome"] for t in found["trials"]} == {"complete"}
    assert found["protocol"]["base_bits"] == {"bits": 4, "whole": []}
    assert found["protocol"]["settings"]["base_bits"] == 4
    assert "bitsandbytes" in found["protocol"]["versions"]
    (study,) = [r for r in runs(tmp_path, "smoke") if "base_bits.bits" in r.data.params]
    assert study.data.params["base_bits.bits"] == "4"
    out = tmp_path / "exported"
    where = ("--storage", str(tmp_path), "--out", str(out))
    assert export.main(["bits", "--arm", "lora", *where]) == 0
    assert (out / "adapter_config.json").is_file()
    card = (out / "README.md").read_text()
    assert "load_in_4bit=True" in card and 'bnb_4bit_quant_type="nf4"' in card
    loading = card.partition("```python\n")[2].partition("```")[0].replace('"DIR"', repr(str(out)))
    assert "base = PeftModel" in loading
    loaded: dict[str, Any] = {}
    exec(loading.replace(f'"{folder.name}"', repr(str(folder))), loaded)
    assert any(type(m).__name__ == "Linear4bit" for m in loaded["base"].modules())
    drawn = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(drawn).save(tmp_path / "image.png")
    questions = ("--image", str(tmp_path / "image.png"), "--question", "is this a ct ?")
    assert predict.main([str(out), *questions]) == 0


@pytest.mark.parametrize("family", ["blip", pytest.param("llava", marks=pytest.mark.by_hand)])
def test_a_study_of_reports(family: str, tmp_path: Path) -> None:
    """Tables show what reports are scored by. BLIP's writes them with two beams. The LLaVA is run
    as the large ones are: its base in the bf16 of its checkpoint."""
    (tmp_path / "data").mkdir()
    iu_xray.write(tmp_path / "data")
    model = {"blip": "tiny", "llava": str(tmp_path / "model")}[family]
    if family == "llava":
        settings: dict[str, Any] = {"dtype": torch.bfloat16, "mm_projector_type": "linear"}
        made_llava.write(tmp_path / "model", "mistral", **settings)
    data = ("--data", "iu_xray", "--data-root", str(tmp_path / "data"), "--allow-leak")
    budget = ("--trials", "2", "--max-examples", "64", "--seeds", "1")
    how = {
        "blip": ("--beams", "2", "--label-smoothing", "0.1"),
        "llava": ("--precision", "bf16"),
    }[family]
    asked = ("--space", "smoke", "--model", model, *data, *budget, *how)
    shown = launch(tmp_path, *asked, "--name", "r")
    found = results(tmp_path, "r")
    assert "ROUGE-L %" in shown and "BLEU-4 %" in shown and "closed %" not in shown
    assert [t["outcome"] for t in found["trials"]] == ["complete"] * 5
    last = [t["rungs"][-1]["validation_loss"] for t in found["trials"] if t["rungs"]]
    # LayerNorm draws nothing at its start, and all data are in one batch: seeds change nothing.
    assert len(set(last)) >= 3 and all(map(math.isfinite, last))
    # The cell may be wrapped, with words of other cells between its lines.
    frozen = re.search(r"connector\s.*frozen\s.*\(no\s.*norm\)", shown, re.DOTALL)
    assert (frozen is not None) == (family == "llava")
    assert found["protocol"]["answer_tokens"] > 10
    assert found["baselines"]["majority"]["report"] == pytest.approx(100)  # all are the same here
    for arm in found["arms"]:
        assert arm["test"]["overall"] == arm["test"]["report"]
        assert arm["test"]["open"]["mean"] is None and arm["test"]["cider"]["mean"] >= 0
        assert arm["test"]["report"]["mean"] == pytest.approx(arm["seeds"][0]["rouge_l"])
        if family == "blip":
            assert arm["test"]["report"]["mean"] > 5
    assert "CIDEr %" in (tmp_path / "r" / "report.html").read_text()


SEVERAL_PROMPTS = """
from search_spaces.declare import Arm, Budget, Choice, Space, method, training
PROMPTS = Choice("{question}", "is this a ct ? {question}")
SPACE = Space(
    question="?",
    arms={"lora": Arm(everywhere=method("lora"), lr=0.01, training=training(prompt=PROMPTS))},
    budget=Budget(trials=2, max_examples=64, rungs=1, batch_size=8),
)
"""


def test_a_study_asks_multiple_choice_questions_in_several_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The winner's prompt is in all that follows, up to the exported model."""
    model = made_image_text.write(tmp_path / "model", "gemma3")
    (tmp_path / "space.py").write_text(SEVERAL_PROMPTS)
    (tmp_path / "data").mkdir()
    ways = ({"answer": "B"}, {"answer": "no"}, {"answer": "A: yes"})
    lines = [
        row | {"question": "is this a ct ?", "options": ["yes", "no"]} | ways[number % 3]
        for number, row in enumerate(jsonl.rows())
    ]
    jsonl.write(tmp_path / "data", lines)
    asked = ("--space", str(tmp_path / "space.py"), "--model", str(model), "--seeds", "1")
    asked += ("--data", "jsonl", "--data-root", str(tmp_path / "data"), "--split", "by_image")
    asked += ("--choose", "likelihood", "--system", "where is the liver", "--name", "asked")
    shown = launch(tmp_path, *asked)
    assert 'system   "where is the liver"' in shown and "choice %" in shown
    found = results(tmp_path, "asked")
    best = found["arms"][0]["best"]["parameters"]["prompt"]
    assert {t["parameters"].get("prompt") for t in found["trials"] if t["kind"] == "search"} == {
        "{question}",
        "is this a ct ? {question}",
    }
    asked_so = [t["training"]["prompt"] for t in found["trials"] if t["kind"] == "untuned"]
    assert asked_so == [BRIEF, best]
    baselines = found["baselines"]
    assert baselines["untuned_brief"] and baselines["untuned_brief_lenient"]
    assert all(t["scores"]["validation.named_option"] == 100 for t in found["trials"])
    where = ("--storage", str(tmp_path), "--out", str(tmp_path / "exported"))
    assert export.main(["asked", *where]) == 0
    tuned = json.loads((tmp_path / "exported" / "tuned.json").read_text())
    assert (tuned["prompt"], tuned["system"]) == (best, "where is the liver")
    assert tuned["choose"] == "likelihood" and found["protocol"]["data"]["options"]
    card = (tmp_path / "exported" / "README.md").read_text()
    assert '"system": "where is the liver"' in card and "the likeliest answer" in card
    image = str(tmp_path / "data" / "images" / "0.png")
    question = ("--image", image, "--question", "is this a ct ?", "--option", "yes")
    capsys.readouterr()
    assert predict.main([str(tmp_path / "exported"), *question, "--option", "no"]) == 0
    assert capsys.readouterr().out.strip() in ("A", "B", "yes", "no", "A: yes", "B: no")
    assert predict.main([str(tmp_path / "exported"), *question]) == 2
    assert "--option: options must be 2 to 26 but there are 1" in capsys.readouterr().err


def test_a_system_message_for_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    asked = ("--space", "smoke", "--system", "You read X-rays.", "--name", "told")
    done = subprocess.run(
        command(tmp_path, *asked), check=False, capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "tiny takes no system message: it has no chat template; put the text" in done.stderr
    assert not (tmp_path / "told").exists()
