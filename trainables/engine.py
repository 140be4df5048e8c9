"""One training step, by plain PyTorch or by DeepSpeed: the only place that knows which.

Both take the same gradient of the same mean loss, clip it to the same norm and use the same AdamW,
so a trial's losses agree within rounding whichever engine runs it, on however many ranks (the
processes of a gang, ``trainables.ranks``) and in however many pieces a batch is computed.
"""

from __future__ import annotations

import atexit
import inspect
import json
import math
import os
import shutil
import sys
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainables import ranks
from trainables.errors import BadInput
from trainables.models.contract import Batch, Model, Skeleton
from trainables.recipe import Applied

CLIP_NORM = 1.0
DEEPSPEED_BUCKET = 500_000_000  # values that are exchanged at once at most; DeepSpeed's own size


class Losses(nn.Module):
    """A network as a module whose forward is what is minimised, in the trial's precision."""

    def __init__(
        self,
        model: Model | Skeleton,
        network: nn.Module,
        precision: str,
        *,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.network, self.precision = model, network, precision
        self.smoothing = smoothing
        """Label smoothing, in training mode only: what is compared is the plain likelihood."""

    def forward(self, batch: Batch) -> Tensor:
        """Shape (B,): the loss of each question."""
        with self.autocast(batch.pixels_UCSS.device):
            smoothing = self.smoothing if self.training else 0.0
            return self.model.losses(self.network, batch, smoothing=smoothing)

    def autocast(self, device: torch.device) -> torch.autocast:
        """bf16 for matrix products if asked for; parameters stay as they are."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")


class Engine(Protocol):
    """Trains one network's parameters. All ranks call its methods together."""

    settings: Mapping[str, Any]
    """DeepSpeed's configuration; empty if it is not DeepSpeed's."""
    together: bool
    """A forward pass needs all ranks at once, as no one has all weights."""

    def step(self, pieces: Sequence[Batch], lr: float) -> Tensor:
        """One optimizer step on a batch; the mean loss before it, a scalar without gradient.

        The batch is all pieces of all ranks, each question of equal weight. All ranks must have
        the same number of pieces and of questions.
        """

    def trained(self) -> dict[str, Tensor]:
        """The trained parameters by name, whole, on the CPU."""

    def save(self, folder: Path) -> None:
        """Write the optimizer's state into ``folder``."""

    def restore(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        """Take back trained parameters and the optimizer's state as ``save`` left them."""


def start(kind: str, losses: Losses, applied: Applied, weight_decay: float) -> Engine:
    """An engine of ``kind``: ``off`` is plain PyTorch, all others are ``configuration``'s."""
    if kind == "off":
        return Plain(losses, applied, weight_decay)
    settings = configuration(kind, losses, applied.parameters)
    return DeepSpeed(settings, losses, applied, weight_decay)


def resolve_precision(precision: str) -> str:
    """``auto`` is bf16 where the device multiplies it fast, fp32 elsewhere."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"


def _adamw(applied: Applied, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices, none for gains, biases and other vectors.

    A group for each decay and each factor on the learning rate.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in applied.parameters.items():
        groups.setdefault((parameter.ndim <= 1, applied.lr_factors[name]), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": some, "weight_decay": 0.0 if vectors else weight_decay, "lr_factor": factor}
            for (vectors, factor), some in sorted(groups.items(), key=lambda group: group[0])
        ],
        fused=True,
    )


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def _questions(pieces: Sequence[Batch]) -> int:
    return sum(len(piece.image_B) for piece in pieces)


class Plain:
    """PyTorch alone; among several ranks each keeps everything, and gradients are added up."""

    together = False
    settings: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, losses: Losses, applied: Applied, weight_decay: float) -> None:
        self.losses, self.parameters = losses, applied.parameters
        self.optimizer = _adamw(applied, weight_decay)

    def step(self, pieces: Sequence[Batch], lr: float) -> Tensor:
        questions = _questions(pieces) * ranks.here().count
        mean = torch.zeros((), device=pieces[0].image_B.device)
        for piece in pieces:
            loss: Tensor = self.losses(piece).sum() / questions
            loss.backward()  # type: ignore[no-untyped-call]
            mean += loss.detach()
        ranks.add_up(p.grad for p in self.parameters.values() if p.grad is not None)
        self.update(lr)
        return ranks.total(mean)

    def update(self, lr: float) -> None:
        """Clip the gradient that is there, take an optimizer step and forget it."""
        nn.utils.clip_grad_norm_(self.parameters.values(), CLIP_NORM)
        _set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def trained(self) -> dict[str, Tensor]:
        return {n: p.detach().to("cpu", copy=True) for n, p in self.parameters.items()}

    def save(self, folder: Path) -> None:
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")

    def restore(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(trained[name])
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))


class DeepSpeed:
    """DeepSpeed with a ZeRO stage, in a process group of one where no launcher set another up."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        losses: Losses,
        applied: Applied,
        weight_decay: float,
    ) -> None:
        deepspeed = _deepspeed()
        self.parameters, self.settings = applied.parameters, settings
        self.stage = int(settings.get("zero_optimization", {}).get("stage", 0))
        self.together = self.stage == 3 and ranks.here().count > 1
        self.gathered = deepspeed.zero.GatheredParameters
        usual = nn.functional.linear
        self.engine, *_ = deepspeed.initialize(
            model=losses,
            optimizer=_adamw(applied, weight_decay),
            config=dict(settings),
        )
        self.borrowed = 0
        """Weights that layers read which belong to others; see ``_retrace``."""
        # ZeRO-3 replaces it for the whole process and for good; other trials must not notice.
        self.linear, nn.functional.linear = nn.functional.linear, usual
        weakref.finalize(self, _release, self.engine).atexit = False

    def step(self, pieces: Sequence[Batch], lr: float) -> Tensor:
        mean = torch.zeros((), device=pieces[0].image_B.device)
        for piece in pieces:
            self.engine.set_gradient_accumulation_boundary(piece is pieces[-1])
            usual, nn.functional.linear = nn.functional.linear, self.linear
            try:
                # DeepSpeed takes the mean of the ranks' gradients.
                loss: Tensor = self.engine(piece).sum() / _questions(pieces)
            finally:
                nn.functional.linear = usual
            if self.stage == 3:
                self._retrace()
            self.engine.backward(loss)
            mean += loss.detach()
        _set_lr(self.engine.optimizer, lr)
        self.engine.step()
        return ranks.total(mean) / ranks.here().count

    def _retrace(self) -> None:
        """Let ZeRO-3 note anew in which order layers run, if what they fetch has changed.

        A layer that looks at another's weight, as LoRA's do to learn its type, is put down for it
        when it first finds it released: in any pass, the second after a restore, say. The order
        that was noted before lacks it, and DeepSpeed would stop with a tracing error.
        """
        modules = self.engine.module.modules()
        borrowed = sum(len(getattr(module, "_external_params", ())) for module in modules)
        if borrowed != self.borrowed:
            self.borrowed = borrowed
            coordinator = self.engine.optimizer.parameter_offload.get_param_coordinator()
            if not coordinator.is_invalid_trace():
                coordinator._invalidate_trace()

    def trained(self) -> dict[str, Tensor]:
        with self.gathered(list(self.parameters.values())):
            return {n: p.detach().to("cpu", copy=True) for n, p in self.parameters.items()}

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(
            folder, tag="engine", save_latest=False, exclude_frozen_parameters=True
        )

    def restore(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        if not (folder / "engine").is_dir():
            raise FileNotFoundError(f"{folder} holds no checkpoint of DeepSpeed")
        self.engine.load_checkpoint(folder, tag="engine", load_module_strict=False)


OFFLOAD = "-offload"
"""What a kind ends with whose optimizer, and under ZeRO-3 whose weights, are in host memory."""
OURS = ("train_batch_size", "gradient_accumulation_steps", "optimizer", "scheduler")
"""What a user's configuration must not have: the study decides it, alike for all trials."""


def configuration(
    kind: str, losses: nn.Module, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Any]:
    """DeepSpeed's, as small as the trial allows; ``kind`` is a ZeRO stage, ``0`` to ``3``, the same
    with ``OFFLOAD`` behind it, or a configuration of the user's as JSON, which is taken as it is.

    Its own sizes are made for models of billions of trained parameters: it would take 2 GiB for the
    gradients of an adapter on their way, and ZeRO-3 would never let go of a model below a billion
    parameters, since all of it is used again soon.
    """
    micro_batch = {"train_micro_batch_size_per_gpu": 1}  # it must be said; batches are ours
    if kind.startswith("{"):
        return {**json.loads(kind), **micro_batch}
    stage, offload = int(kind.removesuffix(OFFLOAD)), kind.endswith(OFFLOAD)
    trained = sum(parameter.numel() for parameter in parameters.values())
    layer = max(
        sum(p.numel() for p in module.parameters(recurse=False)) for module in losses.modules()
    )
    # Whole pieces of every worker, which DeepSpeed asks for.
    bucket = min(math.ceil(max(trained, 1) / 1024) * 1024, DEEPSPEED_BUCKET)
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "stage3_prefetch_bucket_size": layer,
        "stage3_max_live_parameters": 2 * layer,
        "stage3_max_reuse_distance": 2 * layer,
    }
    host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if offload:
        zero["offload_optimizer"] = host
    if offload and stage == 3:
        zero["offload_param"] = host
    return {
        **micro_batch,
        "gradient_clipping": CLIP_NORM,
        "zero_optimization": zero,
        # Offloaded, it is PyTorch's AdamW all the same: DeepSpeed's own for CPUs rounds otherwise.
        "zero_force_ds_cpu_optimizer": False,
    }


def check_configuration(content: str) -> None:
    """See that a user's configuration, as JSON, is one of DeepSpeed's, by its own schema.

    Raises:
        BadInput: it is not, or it sets what the study decides.
    """
    given = json.loads(content)
    for name in OURS:
        if name in given:
            raise BadInput(f"it must not have {name!r}, which the study decides: leave it away")
    _imported()
    from deepspeed.runtime.config import DeepSpeedConfig

    try:
        DeepSpeedConfig({**given, "train_micro_batch_size_per_gpu": 1})
    except Exception as error:  # of several types, pydantic's among them
        said = " ".join(str(error).split())
        raise BadInput(f"DeepSpeed does not take it: {said[:300]}") from None


def _release(engine: Any) -> None:
    """Cut what holds an engine from outside, or each trial would leave its parameters in memory.

    There are hooks in autograd's graph; ZeRO-3 keeps a list of modules besides, and caches a method
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
    """DeepSpeed, for the devices that there are."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it even in a group of one
    if shutil.which("ninja") is None:  # called by name; a dependency, so beside the interpreter
        os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
    import deepspeed

    # A kernel for processes that share memory: gloo does without, and it would be compiled first.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # torch 2.13 renamed collectives that DeepSpeed 0.19 still calls by their old names.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    return deepspeed


def _deepspeed() -> Any:
    """DeepSpeed, ready to be used in this process."""
    deepspeed = _imported()
    from torch.distributed import HashStore  # type: ignore[attr-defined]  # documented as public

    if not torch.distributed.is_initialized():
        cuda = torch.cuda.is_available()
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo", store=HashStore(), rank=0, world_size=1
        )
        atexit.register(torch.distributed.destroy_process_group)
    deepspeed.init_distributed(auto_mpi_discovery=False)
    return deepspeed
