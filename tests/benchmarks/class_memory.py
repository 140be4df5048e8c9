"""Predicted peak memory against the allocator's, for a small model of each class, with the base as
it is and in four bits.

    python -m tests.benchmarks.class_memory [--classes NAME ...]

Measured are two steps of a real trial; predicted is what ``study.plan`` predicts, from the model's
``config.json`` alone. A cell has the measured KiB of a trial without the base, and the error of the
prediction. The last column is the largest error of the base's size.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import warnings
from pathlib import Path

from tests.trainables import made_image_text, made_llava
from tests.trainables.conftest import WORDS, made_up
from tests.trainables.memory.test_footprint import measure, of_slots, predict
from trainables.memory import fake_weights
from trainables.model_lookup import skeleton_of
from trainables.models.common.quantisation import BaseBits
from trainables.workload import WorkloadConfig

CLASSES = ("llava", *made_image_text.CLASSES)
BASES = ((None, "fp32"), (None, "bf16"), (BaseBits(), "fp32"), (BaseBits(), "bf16"))
"""How the base is held, and the precision in which a trial computes."""
RECIPES = (("frozen", "lora"), ("layernorm", "layernorm"))
"""Method of the image encoder, and of the other slots."""
KIB = 2**10


def main() -> None:
    """Print a line for each class, then how far off the predictions are."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", nargs="+", choices=CLASSES, default=CLASSES)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for texts in (
        [f"{4 if bits else 32} bits, {precision}" for (bits, precision), _ in combinations()],
        ["/".join(recipe) for _, recipe in combinations()],
    ):
        print(f"{'':15}" + "".join(f" {text:>19}" for text in texts))
    errors: list[float] = []
    for kind in given.classes:
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root) / kind
            if kind == "llava":
                made_llava.write(folder)
            else:
                made_image_text.write(folder, kind, WORDS)
            found = [compare(folder, *combination) for combination in combinations()]
        errors += [error for _, error, _ in found]
        cells = "".join(f" {size / KIB:11.0f} {error:+6.1f}%" for size, error, _ in found)
        print(f"{kind:15}{cells} {max(abs(base) for *_, base in found):6.1f}%", flush=True)
    off = sorted(map(abs, errors))
    print(
        f"{len(off)} combinations: median {statistics.median(off):.1f}% off, at most "
        f"{off[-1]:.1f}%, {sum(error <= 10 for error in off)} within 10%"
    )


def combinations() -> list[tuple[tuple[BaseBits | None, str], tuple[str, str]]]:
    """What is compared for each class."""
    return list(itertools.product(BASES, RECIPES))


def compare(
    folder: Path, held: tuple[BaseBits | None, str], recipe: tuple[str, str]
) -> tuple[int, float, float]:
    """Bytes of a trial on a model folder, and the errors in percent of the prediction for the trial
    and for the base."""
    (bits, precision), size = held, made_image_text.SIZE
    config = WorkloadConfig(model=str(folder), image_size=size, precision=precision, base_bits=bits)
    model, _ = config.load_model()
    chosen = of_slots(model, *recipe)
    shape, measured = measure(made_up(model), chosen, precision)
    skeleton = skeleton_of(str(folder), size, precision, bits)
    found = predict(skeleton, chosen, shape, precision=precision)
    base = sum(fake_weights.storage_bytes(model.network).values())
    return (
        measured,
        100 * (found.without_base / measured - 1),
        100 * (found.weights / base - 1),
    )


if __name__ == "__main__":
    main()
