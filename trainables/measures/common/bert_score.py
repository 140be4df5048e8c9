"""BERTScore by a model in a folder, for a file of one's own that ``--measure`` takes.

A file that decides by it is, for example::

    from trainables.measures.common.bert_score import measure

    MEASURE = measure("/models/roberta-large", layer=17)

Which layer correlates best with people is in the tables of the paper's authors
(github.com/Tiiiger/bert_score, ``utils.py``). Numbers are comparable only within one model and
layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.common.dataset import Example
from trainables.errors import BadInput
from trainables.measures.common.measure import Array, Column, Kind, Measure, Weighted

AT_ONCE = 64
"""Texts that are encoded at once."""


def measure(folder: str, *, layer: int = -1, of: Kind = "open") -> Measure:
    """The measure ``bert_score``: mean F1 of BERTScore in percent (Zhang et al. 2020, arXiv
    1904.09675), without weights by rarity and without rescaling.

    Args:
        folder: encoder and tokenizer in the layout of Hugging Face.
        layer: layer whose output stands for a token; -1 is the last one, 0 the embeddings.
        of: examples that it is for, as of any measure.

    Raises:
        BadInput: there is no ``config.json`` in the folder.
    """
    if not (Path(folder) / "config.json").is_file():
        raise BadInput(f"BERTScore needs a model, but {folder} has no config.json")

    def earned(predicted: Sequence[str], examples: Sequence[Example]) -> Array:
        """F1 of each answer, 0 to 1; (Q,)."""
        texts = dict.fromkeys([*predicted, *(example.answer for example in examples)])
        vectors = dict(zip(texts, _vectors(folder, layer, tuple(texts)), strict=True))
        pairs = zip(predicted, examples, strict=True)
        return np.array([_f1(vectors[given], vectors[e.answer]) for given, e in pairs])

    def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
        return {"bert_score": 100 * float(earned(predicted, examples).mean())}

    def weighted(predicted: Sequence[str], examples: Sequence[Example]) -> Mapping[str, Weighted]:
        earned_Q = earned(predicted, examples)
        return {"bert_score": lambda weights_RQ: 100 * (weights_RQ @ earned_Q) / weights_RQ.sum(1)}

    column = Column(title="BERTScore %", of="reports" if of == "report" else "questions")
    return Measure(of=of, columns={"bert_score": column}, score=score, weighted=weighted)


def _f1(given_TD: Array, true_TD: Array) -> float:
    """F1 of the greedy matches of tokens by cosine; 0 for a text without tokens."""
    if not len(given_TD) or not len(true_TD):
        return float(len(given_TD) == len(true_TD))
    similar_TT = given_TD @ true_TD.T
    precision, recall = similar_TT.max(1).mean(), similar_TT.max(0).mean()
    return float(max(2 * precision * recall / (precision + recall), 0.0)) if precision > 0 else 0.0


@cache
def _encoder(folder: str) -> tuple[Any, Any]:
    """Tokenizer and encoder of a folder."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, AutoModel.from_pretrained(folder, local_files_only=True).eval()


@cache
def _vectors(folder: str, layer: int, texts: tuple[str, ...]) -> list[Array]:
    """Vectors of length 1 of each text's tokens, special tokens left out; (T, D) each."""
    import torch

    tokenizer, encoder = _encoder(folder)
    found: list[Array] = []
    for start in range(0, len(texts), AT_ONCE):
        some = list(texts[start : start + AT_ONCE])
        tokens = tokenizer(
            some,
            return_tensors="pt",
            padding=True,
            truncation=True,
            return_special_tokens_mask=True,
        )
        special_BT = tokens.pop("special_tokens_mask").bool() | ~tokens["attention_mask"].bool()
        with torch.no_grad():
            states = encoder(**tokens, output_hidden_states=True).hidden_states[layer]
        unit_BTD = torch.nn.functional.normalize(states.float(), dim=-1)
        found += [
            unit_TD[~special_T].numpy()
            for unit_TD, special_T in zip(unit_BTD, special_BT, strict=True)
        ]
    return found
