"""Chooses among the options of questions by the likelihood of each as an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from trainables.model_contract import Batch
from trainables.workload import AnswerOption, Workload


@torch.no_grad()
def likeliest(
    network: nn.Module,
    workload: Workload,
    split: str,
    questions: Sequence[int],
    batch_of: Callable[[Sequence[int]], Batch],
    size: int,
) -> list[str]:
    """The likeliest option of each of some questions of ``split``, all of which have options; the
    first of those that are equally likely."""
    options = workload.options(split)
    found = likelihoods(network, workload, split, questions, options, batch_of, size)
    return [
        options[i][max(range(len(of)), key=of.__getitem__)].answer
        for i, of in zip(questions, found, strict=True)
    ]


@torch.no_grad()
def likelihoods(
    network: nn.Module,
    workload: Workload,
    split: str,
    questions: Sequence[int],
    options: Mapping[int, Sequence[AnswerOption]],
    batch_of: Callable[[Sequence[int]], Batch],
    size: int,
) -> list[list[float]]:
    """Log-likelihoods of the options of some questions of ``split``, in their order.

    The likelihood of an option is that of the whole answer: the sum of the log-likelihoods of its
    tokens and its end, as BLIP ranks answers (``rank_answer`` in ``models/blip_vqa.py`` of
    github.com/salesforce/BLIP). Options of a question are in one batch, which has its image once,
    if there is room for it. Options of the same tokens, as words that a small vocabulary lacks,
    have exactly the same likelihood, whatever the batch.

    Args:
        network: the network of a trial.
        workload: model and data, with the questions as the trial asks them.
        split: split of the questions.
        questions: their indices.
        options: index of each of these questions -> its options.
        batch_of: makes a batch of questions, which may be repeated.
        size: maximum number of answers computed at once, if they are no longer than those that are
            written.
    """
    model, rows = workload.model, workload.rows[split]
    pairs = list(dict.fromkeys((i, option.tokens) for i in questions for option in options[i]))
    longest = max(len(tokens) for _, tokens in pairs)
    size = max(min(size, size * workload.answer_tokens // longest), 1)
    found: list[float] = []
    for start in range(0, len(pairs), size):
        some = pairs[start : start + size]
        answered = model.collate([replace(rows[i], answer=tokens) for i, tokens in some], None).to(
            workload.device
        )
        batch = replace(
            batch_of([i for i, _ in some]),
            answer_BA=answered.answer_BA,
            answer_mask_BA=answered.answer_mask_BA,
        )
        found += (-model.losses(network, batch, summed=True)).tolist()
    each = dict(zip(pairs, found, strict=True))
    return [[each[i, option.tokens] for option in options[i]] for i in questions]
