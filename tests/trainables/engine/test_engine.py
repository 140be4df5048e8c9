"""DeepSpeed trains as plain PyTorch does, at every stage of ZeRO, and leaves nothing behind.

All in this process, one engine after another on one resident base, as a worker of a study does it.
"""

from __future__ import annotations

import gc
import itertools
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.cut_short import every_cut
from tests.trainables.placed import everywhere
from tests.trainables.quantised import in_four_bits
from trainables.engine import plain_engine, start
from trainables.engine.deepspeed_engine import check_configuration
from trainables.engine.training_settings import TORCH_OF, TrainingSettings
from trainables.errors import BadInput
from trainables.model_contract import slot
from trainables.training import checkpoint
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

STEPS, STOP = 10, 6
STAGES = ["0", "1", "2", "3"]
METHODS = ["layernorm", "lora", "full"]
SPECIAL = [
    ("prefix", "2"),
    ("lora+", "2"),
    ("lora+", "3"),
    ("dora", "3"),  # it reads the weights of other layers
    ("vera", "3"),  # its layers share what is no parameter
    ("oft", "3"),
    ("prompt", "2"),
    ("prompt", "3"),  # from block to block
    ("adapter", "3"),
    ("lora", "2-offload"),
    ("lora", "3-offload"),
]
SETTINGS: dict[str, dict[str, Any]] = {
    "lora+": {"method": "lora", "lr_ratio": 8.0, "lr_scale": 0.5}
}


def trial(workload: Workload, method: str, kind: str, **settings: Any) -> Trial:
    config = TrialConfig(
        **{
            "recipe": everywhere(workload.model, **SETTINGS.get(method, {"method": method})),
            "lr": 1e-3,
            "seed": 0,
            "max_examples": 8 * STEPS,
            "batch_size": 8,
            "training": TrainingSettings(weight_decay=0.1),
            **settings,
        }
    )
    return Trial(workload, config, deepspeed=kind)


def whole(tensor_of: dict[str, Tensor], workload: Workload) -> dict[str, Tensor]:
    """Leave out the biases of keys: softmax doesn't see them, so their gradient is nothing but
    rounding, which Adam makes as large as any other."""
    model = workload.model
    blind = {
        f"{model.slots[name]}.{layer}.bias"
        for name in model.slots
        for role in ("key", "qkv")
        for layer in slot(model, model.network, name).roles.get(role, ())
    }
    return {name: tensor for name, tensor in tensor_of.items() if name not in blind}


@pytest.mark.parametrize(
    ("method", "stage"),
    [
        *itertools.product(METHODS, STAGES[:-1]),
        # ZeRO-3 takes several times as long. It has to notice parameters of no layer (IA3).
        *(pytest.param(each, "3", marks=pytest.mark.slow) for each in ("layernorm", "lora")),
        *(pytest.param(each, "3") for each in ("full", "ia3")),
        pytest.param("prefix", "3", marks=pytest.mark.slow),
    ],
)
def test_it_trains_as_plain_pytorch_does(
    workload: Workload, tmp_path: Path, method: str, stage: str
) -> None:
    base = {name: tensor.clone() for name, tensor in workload.model.network.state_dict().items()}
    plain, zero = trial(workload, method, "off"), trial(workload, method, stage)
    assert plain.engine is not None and zero.engine is not None
    begun = whole(plain.engine.trained_weights(), workload)
    for step in range(1, STEPS + 1):
        assert zero.train(8 * step) == pytest.approx(plain.train(8 * step), rel=1e-5)
        if step == STOP:
            assert zero.validation_loss() == pytest.approx(plain.validation_loss(), rel=1e-5)
            assert zero.answers("test") == plain.answers("test")
            zero.save(tmp_path, {"rung": 1})
    assert zero.validation_loss() == pytest.approx(plain.validation_loss(), rel=1e-5)
    expected, found = (
        whole(plain.engine.trained_weights(), workload),
        whole(zero.engine.trained_weights(), workload),
    )
    assert found.keys() == expected.keys()
    # As a whole and by how far it moved: a single value whose gradient is all but zero may end a
    # little elsewhere, since Adam makes its rounding as large as any other gradient.
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() <= 1e-3 * (tensor - begun[name]).norm(), name

    other = trial(workload, method, stage)
    assert other.restore(tmp_path)
    assert (other.examples_seen, other.report) == (8 * STOP, {"rung": 1})
    again = trial(workload, method, "off")
    again.train(8 * STOP)
    assert other.validation_loss() == pytest.approx(again.validation_loss(), rel=1e-5)
    for step in range(STOP + 1, STEPS + 1):
        assert other.train(8 * step) == pytest.approx(again.train(8 * step), rel=1e-5)

    after = workload.model.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in base.items())


@pytest.mark.parametrize(("method", "stage"), SPECIAL)
def test_it_trains_special_modules_too(workload: Workload, method: str, stage: str) -> None:
    """Modules of some methods do what ZeRO may not expect."""
    plain, zero = trial(workload, method, "off"), trial(workload, method, stage)
    for step in range(1, 4):
        assert zero.train(8 * step) == pytest.approx(plain.train(8 * step), rel=1e-5)
    assert zero.validation_loss() == pytest.approx(plain.validation_loss(), rel=1e-5)
    assert plain.engine is not None and zero.engine is not None
    expected, found = plain.engine.trained_weights(), zero.engine.trained_weights()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("stage", ["1", "2", "2-offload"])
def test_it_trains_on_a_base_in_four_bits(tmp_path: Path, stage: str) -> None:
    workload = in_four_bits("llava")
    plain, zero = trial(workload, "lora", "off"), trial(workload, "lora", stage)
    for step in range(1, 4):
        assert zero.train(8 * step) == pytest.approx(plain.train(8 * step), rel=1e-5)
    zero.save(tmp_path)
    again = trial(workload, "lora", stage)
    assert again.restore(tmp_path)
    assert again.train(32) == pytest.approx(plain.train(32), rel=1e-5)
    saved = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    trained = sum(p.numel() for p in zero.applied.parameters.values())
    assert saved < 4 * 4 * trained + 100_000, "the base is in no checkpoint"


@pytest.mark.parametrize("stage", STAGES)
def test_it_leaves_nothing_behind(workload: Workload, stage: str) -> None:
    usual = torch.nn.functional.linear
    ended = trial(workload, "lora", stage)
    ended.train(16)
    ended.validation_loss()
    assert torch.nn.functional.linear is usual, "ZeRO-3 replaces it for the whole process"
    parameter = next(iter(ended.applied.parameters.values()))
    remains: list[weakref.ref[Any]] = [weakref.ref(ended.losses), weakref.ref(parameter)]
    del ended, parameter
    gc.collect()  # finds the trial, whose end lets go of its engine,
    gc.collect()  # and what that held
    assert [there() for there in remains] == [None, None]


@pytest.mark.parametrize("stage", ["2", "3"])
def test_it_says_nothing(
    workload: Workload,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    stage: str,
    tmp_path: Path,
) -> None:
    quiet = trial(workload, "lora", stage)
    quiet.train(16)
    quiet.save(tmp_path)
    quiet.restore(tmp_path)
    assert "".join(capfd.readouterr()) == ""
    assert [str(warning.message) for warning in recwarn] == []


def test_plain_pytorch_does_without_deepspeed() -> None:
    """DeepSpeed takes seconds to import, so only the engine that needs it imports it."""
    code = "import sys, trainables.training.trial; print('deepspeed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_checkpoint_that_is_not_there_is_an_error(workload: Workload, tmp_path: Path) -> None:
    """DeepSpeed itself fails an assertion without a message."""
    started = trial(workload, "layernorm", "2").engine
    assert started is not None
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        started.restore(tmp_path, {})


def test_what_another_engine_saved_is_left_alone(workload: Workload, tmp_path: Path) -> None:
    plain = trial(workload, "layernorm", "off")
    plain.step()
    plain.save(tmp_path)
    other = trial(workload, "layernorm", "2")
    assert not other.restore(tmp_path) and other.examples_seen == 0
    assert trial(workload, "layernorm", "off").restore(tmp_path)


@pytest.mark.deepspeed
@pytest.mark.parametrize("stage", ["0", "2", "3"])
def test_a_checkpoint_that_is_cut_short_is_passed_over(
    made: Callable[..., Workload], tmp_path: Path, stage: str
) -> None:
    workload, folder = made("llava"), tmp_path / "whole"
    first = trial(workload, "lora", stage)
    expected = [first.step()]
    first.save(folder)
    shutil.copytree(folder, tmp_path / "first")
    expected.append(first.step())
    first.save(folder)
    shutil.copytree(tmp_path / "first", folder, dirs_exist_ok=True)
    expected.append(first.step())

    # None of these touches the engine that looks.
    looking = trial(workload, "lora", stage)
    assert looking.engine is not None
    for listed in (True, False):
        for what, copy in every_cut(folder, tmp_path / "cut", listed=listed):
            found, broken = checkpoint.last(copy, looking._checkpoint_kind, looking.engine)
            script = not listed and what.startswith("zero_to_")  # DeepSpeed's, which nobody runs
            assert found == copy / f"{16 if script else 8:012d}", what
            assert broken == ([16] if listed or not (script or "engine.txt" in what) else []), what
    states = sorted(file.name for file in folder.glob("*16/engine/*.pt"))
    assert len(states) == (1 if stage == "0" else 2)
    for name in states:  # as earlier versions may have left it, without a list
        shutil.rmtree(tmp_path / "cut")
        shutil.copytree(folder, tmp_path / "cut")
        (tmp_path / "cut" / "000000000016" / "engine" / name).unlink()
        found, _ = checkpoint.last(tmp_path / "cut", looking._checkpoint_kind, looking.engine)
        assert found is not None and int(found.name) == 8, name

    assert looking.restore(tmp_path / "cut")
    assert (looking.examples_seen, looking.broken) == (8, [16])
    assert [looking.step() for _ in range(2)] == pytest.approx(expected[1:], rel=1e-6)
    looking.save(tmp_path / "cut")
    other = trial(workload, "lora", stage)
    assert other.restore(tmp_path / "cut") and (other.examples_seen, other.broken) == (24, [])


def test_a_users_configuration_is_taken_whole(workload: Workload) -> None:
    content = json.dumps({"zero_optimization": {"stage": 1}, "gradient_clipping": 0.5})
    check_configuration(content)
    started = trial(workload, "layernorm", content).engine
    assert started is not None
    assert started.settings == {**json.loads(content), "train_micro_batch_size_per_gpu": 1}
    other = trial(workload, "layernorm", "1").engine
    assert other is not None
    assert started.settings != other.settings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"zero_optimization": {"stage": 7}}, "does not take it"),
        ({"zero_optimization": {"stagge": 2}}, "stagge"),
        ({"optimizer": {"type": "SGD"}}, "must not have 'optimizer'"),
        ({"train_batch_size": 8}, "must not have 'train_batch_size'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check_configuration(json.dumps(given))


def test_what_is_trained_is_a_copy(workload: Workload) -> None:
    for kind in ("off", "2", "3"):
        going_on = trial(workload, "layernorm", kind)
        assert going_on.engine is not None
        before = going_on.engine.trained_weights()
        kept = {name: tensor.clone() for name, tensor in before.items()}
        going_on.train(16)
        assert all(torch.equal(before[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("stage", ["0", "2"])
def test_deepspeed_takes_the_training_settings_too(workload: Workload, stage: str) -> None:
    """Each of them changes the weights, and by both engines alike."""
    weights = {}
    for settings in (
        TrainingSettings(),
        TrainingSettings(max_grad_norm=1e-3, beta1=0.0),
        TrainingSettings(max_grad_norm=0, beta2=0.9, weight_decay=3.0, schedule="constant"),
    ):
        trials = [trial(workload, "lora", kind, training=settings) for kind in ("off", stage)]
        for step in range(1, 4):
            plain, zero = (each.train(8 * step) for each in trials)
            assert zero == pytest.approx(plain, rel=1e-5)
        plain, zero = (each.engine.trained_weights() for each in trials if each.engine)
        for name, tensor in plain.items():
            torch.testing.assert_close(zero[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
        weights[settings] = torch.cat([tensor.flatten() for tensor in plain.values()])
    one, other, third = weights.values()
    assert not one.allclose(other) and not one.allclose(third) and not other.allclose(third)


def test_the_gradient_is_clipped_to_the_norm_that_is_given(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *given: Any) -> Any:
        grads = [p.grad.flatten() for g in self.param_groups for p in g["params"]]
        norms.append(float(torch.cat(grads).norm()))
        return step(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    for norm in (0.0, 0.01, 1e6):
        trial(workload, "layernorm", "off", training=TrainingSettings(max_grad_norm=norm)).step()
    whole, clipped, large = norms
    assert clipped == pytest.approx(0.01, rel=1e-3) and whole == large > 0.01


@pytest.mark.needs("torch", TORCH_OF["muon"])
def test_muon_is_for_matrices_within_the_network(workload: Workload, tmp_path: Path) -> None:
    """Embeddings, vectors and convolutions are AdamW's. Both go on from where they were."""
    muon = TrainingSettings(optimizer="muon", weight_decay=0.1)
    whole = trial(workload, "full", "off", training=muon)
    expected = [whole.step() for _ in range(4)]
    first = trial(workload, "full", "off", training=muon)
    engine = first.engine
    assert isinstance(engine, plain_engine.Plain)
    first.train(16)
    embedded = {
        id(module.weight)
        for module in first.losses.modules()
        if isinstance(module, torch.nn.Embedding)
    }
    state = engine.optimizer.state
    for parameter, held in state.items():
        matrix = parameter.ndim == 2 and id(parameter) not in embedded
        assert ("momentum_buffer" in held, "exp_avg" in held) == (matrix, not matrix)
    assert len({"exp_avg" in held for held in state.values()}) == 2
    first.save(tmp_path)
    second = trial(workload, "full", "off", training=muon)
    assert second.restore(tmp_path)
    assert [second.step() for _ in range(2)] == pytest.approx(expected[2:], rel=1e-5)


def test_adamw_of_8_bits_stays_near_adamw(workload: Workload, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    small = TrainingSettings(optimizer="adamw_8bit")
    whole, first, second = (trial(workload, "full", "off", training=small) for _ in range(3))
    expected = [whole.step() for _ in range(6)]
    as_adamw = trial(workload, "full", "off")
    assert [as_adamw.step() for _ in range(6)] == pytest.approx(expected, rel=0.02)
    first.train(32)
    assert isinstance(first.engine, plain_engine.Plain)
    state = first.engine.optimizer.state
    assert {v.dtype for held in state.values() for v in held.values() if torch.is_tensor(v)} == {
        torch.uint8,
        torch.float32,
    }
    first.save(tmp_path)
    assert second.restore(tmp_path)
    assert [second.step() for _ in range(2)] == pytest.approx(expected[4:], rel=1e-5)


@pytest.mark.needs("torch", TORCH_OF["muon"])
def test_muon_on_vectors_alone_is_adamw(workload: Workload) -> None:
    by_adamw, by_muon = (
        trial(workload, "layernorm", "off", training=TrainingSettings(optimizer=optimizer))
        for optimizer in ("adamw", "muon")
    )
    assert by_muon.train(24) == by_adamw.train(24)


@pytest.mark.needs("torch", TORCH_OF["muon"])
def test_deepspeed_has_muon_where_matrices_are_whole(workload: Workload, tmp_path: Path) -> None:
    muon = TrainingSettings(optimizer="muon")
    plain, zero = (trial(workload, "full", kind, training=muon) for kind in ("off", "0"))
    for step in range(1, 4):
        assert zero.train(8 * step) == pytest.approx(plain.train(8 * step), rel=1e-5)
    zero.save(tmp_path)
    again = trial(workload, "full", "0", training=muon)
    assert again.restore(tmp_path)
    assert again.train(32) == pytest.approx(plain.train(32), rel=1e-5)
    for kind in ("1", "2", "3", "2-offload"):
        with pytest.raises(BadInput, match=r"'muon' does not run by ZeRO-\d, which divides"):
            trial(workload, "lora", kind, training=muon)


@pytest.mark.parametrize("method", ["full", "lora", "ia3"])
def test_weight_decay_is_for_matrices(workload: Workload, method: str) -> None:
    """IA3's vectors count as vectors, though peft holds them as matrices."""
    decayed = trial(workload, method, "off")
    plain = decayed.engine
    assert isinstance(plain, plain_engine.Plain)
    decay = {
        id(parameter): group["weight_decay"]
        for group in plain.optimizer.param_groups
        for parameter in group["params"]
    }
    for parameter in decayed.applied.parameters.values():
        matrix = parameter.ndim > 1 and method != "ia3"
        assert decay[id(parameter)] == (0.1 if matrix else 0)


def test_auto_is_a_precision() -> None:
    assert start.resolve_precision("auto") in ("fp32", "bf16")
    assert start.resolve_precision("fp32") == "fp32"
