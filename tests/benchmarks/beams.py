"""What beam search costs beside greedy decoding: ``python -m tests.benchmarks.beams``.

Both answer the same 128 test questions of ``phantom`` with ``tiny``, in turns, on one thread.
"""

from __future__ import annotations

import statistics
import time

import torch

from trainables.workload import Workload, WorkloadConfig

ROUNDS = 5
BEAMS = (1, 3)


def main() -> None:
    """Print the medians and their ratio."""
    torch.set_num_threads(1)
    workload = Workload.load(WorkloadConfig())
    model, batch = workload.model, workload.batch("test", range(128))
    seconds: dict[int, list[float]] = {beams: [] for beams in BEAMS}
    said: dict[int, list[str]] = {}
    for _ in range(ROUNDS):
        for beams in BEAMS:
            started = time.perf_counter()
            said[beams] = model.answers(
                model.network, batch, tokens=workload.answer_tokens, beams=beams
            )
            seconds[beams].append(time.perf_counter() - started)
    greedy, searched = (statistics.median(seconds[beams]) for beams in BEAMS)
    other = sum(a != b for a, b in zip(said[1], said[3], strict=True))
    print(f"greedy {greedy:.3f} s, 3 beams {searched:.3f} s: {searched / greedy:.2f} times")
    print(f"{other} of {len(said[1])} answers differ")


if __name__ == "__main__":
    main()
