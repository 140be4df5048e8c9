"""Token recall and token F1 of open answers, as LLaVA-Med defines them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure
from trainables.measures.common.normalize import normalize
from trainables.measures.common.scripts import words


def token_overlap(predicted: str, answer: str) -> tuple[float, float]:
    """(recall, F1) in percent of an answer's distinct words, as LLaVA-Med scores open answers.

    The source is Li et al. 2023 (arXiv 2306.00890, section 5.2; ``llava/eval/run_eval.py`` of
    github.com/microsoft/LLaVA-Med). An answer that is empty once normalised is right if the
    prediction is empty too. In a script without blanks, each character is a word.
    """
    given, true = set(words(normalize(predicted))), set(words(normalize(answer)))
    if not given or not true:
        same = 100.0 * (given == true)
        return same, same
    both = len(given & true)
    return 100 * both / len(true), 200 * both / (len(given) + len(true))


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Mean token recall and mean token F1 over open questions, in percent."""
    overlap = [token_overlap(p, e.answer) for p, e in zip(predicted, examples, strict=True)]
    recall, f1 = np.array(overlap).mean(axis=0)
    return {"token_recall": float(recall), "token_f1": float(f1)}


MEASURE = Measure(of="open", columns={"token_recall": Column(), "token_f1": Column()}, score=score)
