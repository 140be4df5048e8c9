"""Trains with DeepSpeed, which only this module imports, and lets it run beside other trials.

DeepSpeed changes some global state of a process for good and keeps objects that it should release.
All code that undoes this is here, so that trials of other engines notice nothing.
"""

from __future__ import annotations

import atexit
import inspect
import json
import os
import re
import shutil
import sys
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables.devices import accelerator, kinds
from trainables.engine import ranks
from trainables.engine.base import Losses, count_questions
from trainables.engine.deepspeed_config import RESERVED_KEYS, zero_stage
from trainables.engine.optimizers import make_optimizer, set_lr
from trainables.engine.training_settings import TrainingSettings
from trainables.errors import BadInput, did_you_mean
from trainables.model_contract import Batch
from trainables.recipe import AppliedRecipe


class DeepSpeed:
    """Engine that trains with DeepSpeed at a ZeRO stage. It starts a process group of one if no
    launcher has set up another."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        losses: Losses,
        applied: AppliedRecipe,
        training: TrainingSettings,
    ) -> None:
        deepspeed = _deepspeed()
        self.parameters, self.settings = applied.parameters, settings
        self.stage = zero_stage(settings)
        self.needs_all_ranks = self.stage == 3 and ranks.current().count > 1
        self.gathered = deepspeed.zero.GatheredParameters
        # Without anything to train there is no optimizer, and ZeRO-3 only partitions the weights.
        # Partitioned weights are all vectors, so the optimizer, which looks at shapes, comes first.
        optimizer = make_optimizer(applied, losses, training) if applied.parameters else None
        usual = nn.functional.linear
        if self.stage == 3:
            # ``Init`` brings one weight after the other to the device and keeps a part of each;
            # ``initialize`` alone would bring all of them first.
            found = deepspeed.zero.Init(module=losses, config_dict_or_path=dict(settings))
            _bring_buffers(losses, found.local_device)
        self.engine, *_ = deepspeed.initialize(
            model=losses,
            optimizer=optimizer,
            config=dict(settings),
        )
        self.borrowed = 0
        """Number of weights that a layer reads but another layer owns; ``_retrace`` uses it."""
        # ZeRO-3 replaces ``linear`` for the whole process for good; other trials must not notice.
        nn.functional.linear = usual
        self.linear = _linear() if self.stage == 3 else usual
        weakref.finalize(self, _release, self.engine).atexit = False

    def step(self, pieces: Sequence[Batch], lr: float) -> Tensor:
        mean = torch.zeros((), device=pieces[0].image_B.device)
        for piece in pieces:
            self.engine.set_gradient_accumulation_boundary(piece is pieces[-1])
            usual, nn.functional.linear = nn.functional.linear, self.linear
            try:
                # DeepSpeed takes the mean of the ranks' gradients.
                loss: Tensor = self.engine(piece).sum() / count_questions(pieces)
            finally:
                nn.functional.linear = usual
            if self.stage == 3:
                self._retrace()
            self.engine.backward(loss)
            mean += loss.detach()
        set_lr(self.engine.optimizer, lr)
        self.engine.step()
        return ranks.summed(mean) / ranks.current().count

    def _retrace(self) -> None:
        """Make ZeRO-3 record the order of layers anew if the weights that they fetch have changed.

        A layer may read another layer's weight, as LoRA's do to learn its type. ZeRO-3 adds such a
        weight to those that the layer fetches when the layer first finds it released. That may be
        in any pass, such as the second after a restore. The order that was recorded before lacks
        this weight, and DeepSpeed would stop with a tracing error.
        """
        modules = self.engine.module.modules()
        borrowed = sum(len(getattr(module, "_external_params", ())) for module in modules)
        if borrowed != self.borrowed:
            self.borrowed = borrowed
            coordinator = self.engine.optimizer.parameter_offload.get_param_coordinator()
            if not coordinator.is_invalid_trace():
                coordinator._invalidate_trace()

    def trained_weights(self) -> dict[str, Tensor]:
        with self.gathered(list(self.parameters.values())):
            return {n: p.detach().to("cpu", copy=True) for n, p in self.parameters.items()}

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(
            folder, tag="engine", save_latest=False, exclude_frozen_parameters=True
        )

    def check_saved(self, folder: Path) -> None:
        names = [self.engine._get_ckpt_name(folder, "engine")]
        if self.stage:
            names.append(self.engine._get_zero_ckpt_name(folder, "engine"))
        for name in names:
            self.engine.checkpoint_engine.load(name, map_location="cpu")

    def restore(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        if not (folder / "engine").is_dir():
            raise FileNotFoundError(f"{folder} holds no checkpoint of DeepSpeed")
        self.engine.load_checkpoint(folder, tag="engine", load_module_strict=False)


def _linear() -> Callable[..., Tensor]:
    """ZeRO-3's linear function, changed to keep its input only where the weight is trained.

    It does not hold on to a partitioned weight after it was used. DeepSpeed's own version keeps its
    input for the gradient of any weight, a frozen one included.
    """
    from deepspeed.runtime.zero.linear import LinearFunctionForZeroStage3

    class Linear(LinearFunctionForZeroStage3):  # type: ignore[misc]  # it has no types
        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            LinearFunctionForZeroStage3.setup_context(ctx, inputs, output)
            if not ctx.needs_input_grad[1]:
                _, weight, *bias = inputs
                ctx.save_for_backward(None, weight, *(bias or [None]))

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        found: Tensor = Linear.apply(x, weight, bias)
        return found

    return linear


def _bring_buffers(network: nn.Module, device: torch.device) -> None:
    """Move all buffers to the device. They are no parameters, so ZeRO-3 does not partition them."""
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)


def check_configuration(content: str) -> None:
    """Check by DeepSpeed's own schema that a user's configuration, given as JSON, is valid.

    Raises:
        BadInput: the configuration is not valid, or sets what the study decides.
    """
    configuration = json.loads(content)
    for name in RESERVED_KEYS:
        if name in configuration:
            raise BadInput(f"it must not have {name!r}, which the study decides: leave it away")
    _imported()
    from deepspeed.runtime.config import DeepSpeedConfig

    known = _known_keys()
    for name in configuration:
        if name not in known:
            raise BadInput(
                f"DeepSpeed has no key {name!r}; {did_you_mean(name, known)}".rstrip("; ")
            )
    try:
        DeepSpeedConfig({**configuration, "train_micro_batch_size_per_gpu": 1})
    except Exception as error:  # there are several types, pydantic's among them
        message = " ".join(str(error).split())
        raise BadInput(f"DeepSpeed does not take it: {message[:300]}") from None


def _known_keys() -> set[str]:
    """Words that may be keys of DeepSpeed's configuration: those in the modules of this version
    that name or read its keys. DeepSpeed itself ignores a key that it does not know."""
    import deepspeed

    root = Path(deepspeed.__file__).parent
    sources = [*root.glob("runtime/*.py"), *root.rglob("constants.py"), *root.rglob("config.py")]
    text = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    return set(re.findall(r"\b[a-z][a-z0-9_]+\b", text))


def _release(engine: Any) -> None:
    """Drop outside references to an engine; they would keep each trial's parameters in memory.

    There are hooks in autograd's graph. ZeRO-3 also keeps a list of modules, and caches a method
    with its arguments.
    """
    from deepspeed.runtime.zero import parameter_offload, partitioned_param_coordinator

    engine.destroy()
    if engine.module in parameter_offload.FWD_MODULE_STACK:
        parameter_offload.FWD_MODULE_STACK.remove(engine.module)
    coordinator = partitioned_param_coordinator.PartitionedParameterCoordinator
    method = coordinator._PartitionedParameterCoordinator__params_to_release
    inspect.getclosurevars(method).nonlocals["func"].cache_clear()


def _imported() -> Any:
    """Import DeepSpeed, configured for the devices of this machine."""
    os.environ.setdefault("DS_ACCELERATOR", accelerator.kind())
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed requires it even in a group of one
    # DeepSpeed calls ninja by name; as a dependency it is installed beside the interpreter.
    if shutil.which("ninja") is None:
        os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
    import deepspeed

    # Turn off a kernel for processes that share memory: gloo works without it, and it would have to
    # be compiled first.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # torch 2.13 renamed collectives that DeepSpeed 0.19 still calls by their old names.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    return deepspeed


def _deepspeed() -> Any:
    """Import DeepSpeed and set up its process group."""
    deepspeed = _imported()
    from torch.distributed import HashStore  # type: ignore[attr-defined]  # documented as public

    if not torch.distributed.is_initialized():
        backend = kinds.backend(accelerator.kind())
        torch.distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        atexit.register(torch.distributed.destroy_process_group)
    deepspeed.init_distributed(auto_mpi_discovery=False)
    return deepspeed
