"""``python -m study.plan``: what each arm trains, counted without weights."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from study import plan
from trainables.engine.training_settings import TORCH_OF
from trainables.models.common import attention

FACTS = Path(__file__).parents[3] / "shared" / "facts" / "mile_slake.json"
LETTERS = {"F": "frozen", "T": "full"}


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    """Arm -> what the command says of it."""
    assert plan.main([*arguments, "--json"]) == 0
    return {row["arm"]: row for row in json.loads(capsys.readouterr().out)}


def test_every_arm_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--space", "layernorm_vs_lora", "--model", "miss")
    assert set(found) == {"layernorm", "lora"}
    layernorm = found["layernorm"]
    assert layernorm["total_parameters"] == 361_478_972
    assert layernorm["trained_parameters"] == 38_400 + 56_832 + 58_368
    assert layernorm["percent"] == pytest.approx(100 * 153_600 / 361_478_972)
    assert layernorm["recipe"] == dict.fromkeys(("vision", "fusion", "decoder"), "layernorm")
    assert sum(slot["trained_parameters"] for slot in layernorm["slots"]) == 153_600


def test_adapters_are_counted_as_their_papers_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Of MISS: 12 layers a stack, width 768, a fused qkv in the image encoder, and query and value
    of self- and cross-attention in the text stacks."""
    found = {
        **rows(capsys, "--space", "intrinsic", "--model", "miss"),
        **rows(capsys, "--space", "peft_methods", "--model", "miss"),
    }
    trained = {arm: row["trained_parameters"] for arm, row in found.items()}
    width, layers = 768, 12
    adapted = {"in": layers * (1 + 2 * 4) * width, "out": layers * (3 + 2 * 4) * width}
    assert trained["lora"] == trained["rslora"] == 8 * (adapted["in"] + adapted["out"])
    assert trained["dora"] == trained["lora"] + adapted["out"]
    assert trained["oft"] == adapted["in"] // 16 * (16 * 15 // 2)
    assert trained["vera"] == adapted["out"] + layers * (1 + 2 * 4) * 256
    assert trained["adapter"] == layers * (2 + 2 * 3) * (2 * 32 * width + 32 + width)
    assert trained["prompt"] == 3 * 20 * width


def one_arm(folder: Path, everywhere: str) -> str:
    """A file with a space of one arm, which has this method in all slots."""
    file = folder / "mine.py"
    file.write_text(
        "from search_spaces.declare import *\n"
        f"arm = Arm(everywhere=method({everywhere}), lr=1e-3)\n"
        "SPACE = Space(question='?', arms={'arm': arm})\n"
    )
    return str(file)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "miss",  # 12 layers a stack, width 768, 3072 in between, a fused qkv in vision
            {
                "vision": 12 * 4 * ((768 + 2304) + (768 + 768) + 2 * (768 + 3072)),
                "fusion": 12 * 4 * (2 * 4 * (768 + 768) + 2 * (768 + 3072)),
                "decoder": 12 * 4 * (2 * 4 * (768 + 768) + 2 * (768 + 3072)),
            },
        ),
        (
            "llava-med-v1",  # CLIP ViT-L, of whose 24 layers the last is not run; LLaMA-7B
            {
                "vision": 23 * 4 * (4 * (1024 + 1024) + 2 * (1024 + 4096)),
                "connector": 4 * (1024 + 4096),
                "decoder": 32 * 4 * (4 * (4096 + 4096) + 3 * (4096 + 11008)),
            },
        ),
    ],
)
def test_lora_on_all_layers_is_counted(
    model: str, expected: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LoRA of rank 4 adds 4 (inputs + outputs) to each linear layer. A text layer of MISS has four
    projections for itself and four for the image; a layer of LLaMA has three in its feed-forward
    block."""
    space = one_arm(tmp_path, "'lora', rank=4, targets='all'")
    row = rows(capsys, "--space", space, "--model", model)["arm"]
    found = {slot["slot"]: slot["trained_parameters"] for slot in row["slots"]}
    assert found == expected
    assert row["trained_parameters"] == sum(expected.values())


def test_a_choice_of_places_is_counted_at_what_trains_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory too: placement counts on it."""
    tuning = "'lora', targets=Choice('query,value', 'all', 'ffn'), layers=Choice('all', 'last:1')"
    asked = ("--space", one_arm(tmp_path, tuning), "--batch-size", "4")
    found = rows(capsys, *asked)["arm"]
    largest = rows(capsys, *asked, "--set", "lora.targets=all", "--set", "lora.layers=all")["arm"]
    assert found == largest
    smaller = rows(capsys, *asked, "--set", "lora.layers=last:1")["arm"]
    assert smaller["memory"]["peak_gib"] < found["memory"]["peak_gib"]
    assert plan.main(["--space", one_arm(tmp_path, tuning)]) == 0
    assert "choices that say where" in " ".join(capsys.readouterr().out.split())


def test_a_place_that_the_model_lacks_is_found_before_any_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = one_arm(tmp_path, "'lora', layers=Choice('last:1', 'last:3', 'all')")
    assert plan.main(["--space", space]) == 2
    assert "slot 'fusion' has 2 layers, fewer than last:3 names" in capsys.readouterr().err


def test_images_of_another_size_have_other_positions(capsys: pytest.CaptureFixture[str]) -> None:
    small = rows(capsys, "--space", "smoke", "--model", "miss", "--image-size", "384")["lora"]
    large = rows(capsys, "--space", "smoke", "--model", "miss")["lora"]
    assert large["total_parameters"] - small["total_parameters"] == 768 * (30**2 - 24**2)


@pytest.mark.needs("torch", TORCH_OF["muon"])
def test_an_arm_is_predicted_with_its_own_batches_and_optimizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The largest batch, and the optimizer with the largest state."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from search_spaces.declare import *\n"
        "def arm(**given): return Arm(\n"
        '    everywhere=method("full"), lr=LogUniform(1e-5, 1e-3), training=training(**given))\n'
        'SPACE = Space(question="?", arms={\n'
        '    "plain": arm(), "muon": arm(optimizer="muon"),\n'
        '    "large": arm(batch_size=Choice(2, 8)),\n'
        '    "either": arm(optimizer=Choice("muon", "adamw"), warmup=0.1)})\n'
    )
    found = rows(capsys, "--space", str(file), "--batch-size", "4")
    memory = {arm: row["memory"] for arm, row in found.items()}
    assert memory["large"]["batch_gib"] > 1.9 * memory["plain"]["batch_gib"]
    assert memory["large"]["optimizer_gib"] == memory["plain"]["optimizer_gib"]
    assert memory["muon"]["optimizer_gib"] < 0.8 * memory["plain"]["optimizer_gib"]
    assert memory["either"] == memory["plain"]
    assert plan.main(["--space", str(file), "--batch-size", "4"]) == 0
    shown = capsys.readouterr().out
    for part in ("batch_size {2, 8}", "optimizer {muon, adamw}, warmup=0.1", "its own: the"):
        assert part in " ".join(shown.split()) or part in shown, part


def test_it_says_that_prompts_are_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, asked in (("own", "prompt=Choice('{question}', 'Look. {question}')"), ("none", "")):
        (tmp_path / f"{name}.py").write_text(
            "from search_spaces.declare import Arm, Choice, Space, method, training\n"
            f"arm = Arm(everywhere=method('layernorm'), lr=0.1, training=training({asked}))\n"
            "SPACE = Space(question='?', arms={'arm': arm})\n"
        )
        assert plan.main(["--space", str(tmp_path / f"{name}.py"), "--batch-size", "2"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        said = "Tokens of the arms' own prompts are not counted, since no tokenizer is read"
        assert (said in shown) == (name == "own")


def test_what_is_fixed_is_shown_beside_what_is_searched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = ("--set", "lora/lr=0.5", "lora/beta2=0.95")
    assert plan.main(["--space", "smoke", *changes]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "lora lora.rank {2, 8}, lr=0.5, beta2=0.95" in shown
    assert "layernorm lr 0.001 to 0.1" in shown


@pytest.mark.needs("torch", TORCH_OF["muon"])
def test_ranges_that_do_nothing_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Weight decay and Muon are for matrices, and LayerNorm, biases and IA3 are vectors."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from search_spaces.declare import *\n"
        "names = ('layernorm', 'bitfit', 'ia3', 'lora', 'prompt')\n"
        "arms = {n: Arm(everywhere=method(n), lr=1e-3) for n in names}\n"
        "arms['fixed'] = Arm(everywhere=method('bitfit'), lr=1e-3,\n"
        "    training=training(weight_decay=0.0, optimizer='adamw'))\n"
        "SPACE = Space(question='?', arms=arms, training=training(\n"
        "    weight_decay=Choice(0.0, 0.1), optimizer=Choice('adamw', 'muon')))\n"
    )
    assert plan.main(["--space", str(file), "--model", "tiny"]) == 0
    lines = " ".join(capsys.readouterr().out.split())
    for arm in ("layernorm", "bitfit", "ia3"):
        assert (
            f"arm '{arm}' trains no matrices, which weight decay and Muon would be for; --set "
            f"{arm}/weight_decay=0.01 {arm}/optimizer=adamw leaves it out there"
        ) in lines
    assert lines.count("trains no matrices") == 3


def test_it_is_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["--space", "per_slot"]) == 0
    shown = capsys.readouterr().out
    for part in ("frozen_full_lora", "decoder.lora.rank {4, 8, 16}", "vision frozen"):
        assert part in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "smoke", "--model", "mis"], "did you mean 'miss'?"),
        (["--space", "smok"], "did you mean 'smoke'?"),
        (["--space", "smoke", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--space", "smoke", "--images", "3"], "--images is for --batch-size N"),
        (["--space", "smoke", "--probe"], "--probe is for --batch-size N"),
        (
            ["--space", "smoke", "--batch-size", "2", "--images", "3"],
            "--images 3 is more than the 2 questions",
        ),
    ],
)
def test_what_is_not_there_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert plan.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and said in printed.err and printed.err.count("\n") == 1


@pytest.mark.skipif(not FACTS.is_file(), reason="the papers' tables are not beside this repository")
def test_the_percentages_of_mile(capsys: pytest.CaptureFixture[str]) -> None:
    """All 23, to the three decimals that are printed there."""
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    found = rows(capsys, "--space", "mile", "--model", "miss")
    assert len(facts["rows"]) == len(found) == 23
    for values in facts["rows"]:
        row = dict(zip(facts["columns"], values, strict=True))
        rank = row["rank"] or ""
        parts = (row["vision"], row["fusion"], row["decoder"])
        arm = "_".join(p if p in LETTERS else f"{p}{rank}" for p in parts)
        assert round(found[arm]["percent"], 3) == row["params_percent"], arm
        for slot, part in zip(("vision", "fusion", "decoder"), parts, strict=True):
            assert found[arm]["recipe"][slot].startswith(LETTERS.get(part, part)), arm


def test_memory_with_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--batch-size", "8", "--images", "4", "--question-tokens", "12", "--precision", "bf16")
    assert plan.main(["--space", "smoke", *sizes]) == 0
    shown = capsys.readouterr().out
    for part in ("bf16, 8 questions about 4 images of 96 px, 12 + 10 tokens", "kept by fusion"):
        assert part in shown
    for row in rows(capsys, "--space", "smoke", *sizes).values():
        memory = row["memory"]
        kept = sum(memory["activations_gib"].values()) + sum(memory["features_gib"].values())
        parts = ("weights", "trained", "gradients", "optimizer", "batch", "workspace")
        assert kept > 0
        assert kept + sum(memory[f"{part}_gib"] for part in parts) == pytest.approx(
            memory["peak_gib"]
        )


def test_three_real_steps_correct_it(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--space", "smoke", "--batch-size", "4", "--probe")
    for row in rows(capsys, *asked).values():
        predicted, probe = row["memory"]["peak_gib"], row["probe"]
        assert (probe["micro_batch"], probe["pieces"]) == (4, 1)
        assert probe["peak_gib"] == pytest.approx(predicted, rel=0.1)
        assert probe["correction"] == pytest.approx(probe["peak_gib"] / predicted)
        assert probe["corrected_gib"] == pytest.approx(probe["peak_gib"], rel=1e-3)
    assert plan.main(list(asked)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "beside three real steps here" in shown
    assert "at once predicted probed correction corrected" in shown


@pytest.mark.long  # a model of 361 million parameters is followed, without weights
@pytest.mark.skipif(not FACTS.is_file(), reason="the papers' tables are not beside this repository")
def test_the_memory_of_mile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA behind a frozen image encoder, and LoRA everywhere: 5.19 and 26.63 GB in the paper.

    Its numbers are of a whole process, so that what CUDA itself takes is in them, and of attention
    that keeps its probabilities, as transformers' does. Ours keeps none.
    """
    cuda_gib = 1.0
    arms = {"F": "F_lora4_lora4", "lora": "lora4_lora4_lora4"}
    file = tmp_path / "two.py"
    file.write_text(
        "import dataclasses\n"
        "from search_spaces.mile import SPACE as whole\n"
        f"arms = {{name: whole.arms[name] for name in {tuple(arms.values())}}}\n"
        "SPACE = dataclasses.replace(whole, arms=arms)\n"
    )
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    batch = str(facts["recipe_of_the_paper"]["batch"])
    asked = ("--space", str(file), "--model", "miss", "--batch-size", batch)
    ours = rows(capsys, *asked)
    for kind in (attention.ImageAttention, attention.TextAttention):
        monkeypatch.setattr(kind, "forward", kind.__base__.forward)
    found = rows(capsys, *asked)
    whole = arms["lora"]
    assert ours[whole]["memory"]["peak_gib"] < 0.75 * found[whole]["memory"]["peak_gib"]
    for values in facts["rows"]:
        row = dict(zip(facts["columns"], values, strict=True))
        if row["rank"] == 4 and row["fusion"] == row["decoder"] == "lora" and row["vision"] in arms:
            predicted = found[arms.pop(row["vision"])]["memory"]["peak_gib"] + cuda_gib
            assert predicted == pytest.approx(row["memory_gb"], rel=0.1)
    assert not arms


def test_a_plan_for_7b_says_what_is_frozen_for_want_of_layers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So wide that no cell is wrapped.
    monkeypatch.setattr(
        plan, "standard_console", lambda: Console(highlight=False, markup=False, width=400)
    )
    assert plan.main(["--space", "layernorm_vs_lora", "--model", "llava-med-v1.5", "--json"]) == 0
    rows = {row["arm"]: row for row in json.loads(capsys.readouterr().out)}
    layernorm = rows["layernorm"]
    # 23 layers with two LayerNorms, one ahead of them; 32 layers with two RMSNorms, one behind.
    vision, text = 2 * 1024 * (2 * 23 + 1), 4096 * (2 * 32 + 1)
    assert layernorm["trained_parameters"] == vision + text
    assert layernorm["recipe"] == {
        "vision": "layernorm",
        "connector": "frozen (no norm)",
        "decoder": "layernorm",
    }
    assert rows["lora"]["recipe"]["connector"] == "lora(targets=all)"
    assert plan.main(["--space", "layernorm_vs_lora", "--model", "llava-med-v1.5"]) == 0
    said = capsys.readouterr().out
    assert "connector frozen (no norm)" in said
    assert f"vision layernorm {vision:,} in 23 of 23 layers" in said
    assert f"decoder layernorm {text:,} in 32 of 32 layers" in said


def test_it_says_what_a_study_can_show(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--test-questions", "1061", "--test-images", "96", "--seeds", "3")
    assert plan.main(["--space", "smoke", *sizes]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "A study claims how these tuned models differ, and not the methods" in said
    assert "A study shows differences from 6.7 points, and arms as good to within 7.7" in said
    least = []
    for against in ((), ("--against", "lora")):
        arms = ("--space", "peft_methods", "--arm", "lora,dora,ia3,oft", *against)
        assert plan.main([*arms, *sizes]) == 0
        found = re.search(r"differences from ([\d.]+) points", capsys.readouterr().out)
        assert found is not None
        least.append(float(found[1]))
    assert least[0] > least[1], "three tests instead of six"
    assert plan.main(["--space", "layernorm_vs_lora", "--splits", "5", *sizes]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "5 splits take 5 times the trials, confirmations and time of one split" in said
    assert "at most 125 trials of search" in said
    assert "2 arms x 5 splits x 3 seeds = 30 trainings" in said
    assert "A study shows no arm to be better, since no interval over splits" in said
    assert plan.main(["--space", "smoke", "--splits", "5"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "divided among the splits: at most 4 trials of search" in said
    assert said.endswith("give study.launch --trials 10 or more")
