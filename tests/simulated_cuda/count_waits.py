"""How often the host waits for a CUDA device in a step, for each model.

``python -m tests.simulated_cuda -m tests.simulated_cuda.count_waits`` prints the waits of a step of
LoRA with 8 questions, alone and of six trials in a shared pass, of small models on a simulated
device. The places at which a host may wait are held by ``on_device/test_waits.py``.
"""

from __future__ import annotations

from tests.simulated_cuda.on_device.test_waits import taking_steps
from tests.simulated_cuda.waits import noted
from tests.trainables.conftest import OF_CLASSES, OWN, made_up, small
from tests.trainables.training.trials import config
from trainables.packing.trial_group import TrialGroup

TRIALS = 6


def main() -> None:
    """Print the table."""
    print("| model | alone | shared |\n|---|---|---|")
    for family in (*OWN, *OF_CLASSES):
        workload = made_up(small(family))
        trial = taking_steps(workload, "lora")
        assert trial is not None
        with noted() as alone:
            trial.step()
        group = TrialGroup(workload, places=TRIALS, trials_per_pass=TRIALS)
        for number in range(TRIALS):
            group.enter(str(number), config(workload, "lora", seed=number))
            group.train_to(str(number), 10**6)
        group.step()
        group.step()
        with noted() as shared:
            group.step()
        cell = "each steps alone" if group.alone_reasons else str(shared.total())
        print(f"| `{family.rpartition('/')[2]}` | {alone.total()} | {cell} |", flush=True)


if __name__ == "__main__":
    main()
