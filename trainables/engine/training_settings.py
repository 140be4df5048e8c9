"""Training settings of a trial: optimizer, learning-rate schedule, gradient clipping, label
smoothing, and the prompt that it is trained and asked with. A search space may give each of them a
value or a range."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainables.data.common.wording import Asking, check_prompt, check_system
from trainables.errors import BadInput, too_old, unknown

OPTIMIZERS = ("adamw", "adamw_8bit", "muon")
"""Names of optimizers; ``trainables.engine.optimizers`` makes them."""
SCHEDULES = ("cosine", "linear", "constant")
"""Names of learning-rate schedules; ``decay`` has their formulas."""
UNDIVIDED = ("adamw_8bit", "muon")
"""Optimizers whose step on a value depends on the values beside it, so that they need what is
trained undivided."""
COARSE = ("adamw_8bit", "muon")
"""Optimizers that compute in fewer bits than fp32; Muon orthogonalises in bf16. Gradients that
differ in their last digits, as those of a pass that trials share do, lead them to losses that
differ by 1e-4."""
PACKAGE_OF = {"adamw_8bit": "bitsandbytes"}
"""Optimizer -> package that it needs beside PyTorch."""
TORCH_OF = {"muon": "2.9"}
"""Optimizer -> oldest PyTorch that has it."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Training settings of a trial. A wrong value raises ``BadInput``."""

    optimizer: str = "adamw"
    """Optimizer: ``adamw``; ``adamw_8bit``, AdamW whose state has 8 bits a value (bitsandbytes);
    or ``muon``, Muon for matrices and AdamW for all else."""
    weight_decay: float = 0.01
    """Decoupled weight decay, for matrices only."""
    beta1: float = 0.9
    """Decay rate of AdamW's first moment."""
    beta2: float = 0.999
    """Decay rate of AdamW's second moment."""
    schedule: str = "cosine"
    """Learning rate after the warm-up: ``cosine`` and ``linear`` fall to 0, ``constant`` stays."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises linearly from 0."""
    max_grad_norm: float = 1.0
    """Norm to which the gradient of all trained parameters together is clipped; 0, or None in
    ``from_plain``: no clipping."""
    label_smoothing: float | None = None
    """Label smoothing of the training loss (``Regime.label_smoothing``); None: the study's."""

    prompt: str | None = None
    """Prompt with which the trial is trained, validated and asked, as ``"{question} Answer with one
    word."``; None: the study's."""
    system: str | None = None
    """System message, for models with a chat template; empty: none; None: the study's."""

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> TrainingSettings:
        """Make settings from the values of some of them, the inverse of ``plain``.

        Raises:
            BadInput: there is no such setting, or a value is not allowed.
        """
        defaults = asdict(cls())
        for name in settings:
            if name not in defaults:
                raise unknown("training setting", name, defaults)
        # 0 and 0.0 are one setting, so they must not make two trials.
        given: dict[str, Any] = {
            name: float(value) if type(value) is int and abs(value) < 2**53 else value
            for name, value in settings.items()
        }
        if given.get("max_grad_norm", 0.0) is None:
            given["max_grad_norm"] = 0.0
        return cls(**given)

    def __post_init__(self) -> None:
        for name, names in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            given = getattr(self, name)
            if given not in names:
                raise unknown(name, str(given), names)
        for name in ("weight_decay", "max_grad_norm"):
            if not _is_number(value := getattr(self, name)) or value < 0:
                raise BadInput(f"{name} must not be negative but got {value!r}")
        for name in ("beta1", "beta2", "warmup", "label_smoothing"):
            value = getattr(self, name)
            if name == "label_smoothing" and value is None:
                continue
            if not _is_number(value) or not 0 <= value < 1:
                raise BadInput(f"{name} must be in [0, 1) but got {value!r}")
        if self.prompt is not None:
            check_prompt(self.prompt)
        if self.system is not None:
            check_system(self.system)

    def asking(self, of_study: Asking) -> Asking:
        """Prompt and system message of the trial: its own or, where it has none, the study's."""
        return of_study.but(self.prompt, self.system)

    def plain(self) -> dict[str, Any]:
        """Settings that are off their defaults, JSON-ready: a trial's id depends on these."""
        defaults = asdict(type(self)())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    def check_installed(self) -> None:
        """Check that what the optimizer needs is installed, without importing it.

        Raises:
            BadInput: its package is not, or PyTorch is too old.
        """
        if (oldest := TORCH_OF.get(self.optimizer)) is not None:
            error = too_old(f"optimizer {self.optimizer!r}", "torch", oldest, "give adamw")
            if error is not None:
                raise error
        package = PACKAGE_OF.get(self.optimizer)
        if package is not None and importlib.util.find_spec(package) is None:
            others = ", ".join(name for name in OPTIMIZERS if name not in PACKAGE_OF)
            raise BadInput(
                f"optimizer {self.optimizer!r} needs the package {package}, which is not "
                f"installed: pip install {package}, or give one of {others}"
            )

    def decay(self, share: float) -> float:
        """Factor on the peak learning rate after a ``share`` of the steps that follow the warm-up.

        The cosine is that of Loshchilov and Hutter 2017 (arXiv 1608.03983), without restarts.
        """
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "linear":
            return 1 - share
        return 0.5 * (1 + math.cos(math.pi * share))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


DEFAULT_TRAINING = TrainingSettings()
