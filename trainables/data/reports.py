"""How reports are scored: by the words they share with what a radiologist wrote, and by the
observations that both assert.

BLEU, ROUGE-L and CIDEr of ``pycocoevalcap``, with which the literature on report generation counts
them, after R2Gen's cleaning, so that numbers can be held against published ones. They measure
wording, and do not know whether a finding is asserted or denied: ``trainables.data.observations``
does, for chest reports, by rules. (CheXbert and RadGraph need weights of their own.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from trainables.data import observations

WORDING = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")
MEASURES = (*WORDING, *observations.MEASURES)


def clean(report: str) -> str:
    """A report in the form in which reports are compared.

    As ``clean_report_iu_xray`` of R2Gen (Chen et al., EMNLP 2020; ``modules/tokenizers.py`` of
    github.com/cuhksz-nlp/R2Gen): lower case, no numbers of a list, no punctuation but hyphens and
    the points between sentences. There reports are cleaned, and cut after 60 words, before training
    and scoring; here both sides are cleaned when they are scored, and nothing is cut.

    >>> clean("1. Heart size normal; no effusion. 2. XXXX lungs are clear.")
    'heart size normal no effusion . xxxx lungs are clear .'
    """
    text = re.sub(r"\.{2,}", ".", report).replace("1. ", "")
    for before in (". ", " "):
        for number in "2345":
            text = text.replace(f"{before}{number}. ", ". ")
    sentences = text.strip().lower().split(". ")
    words = [re.sub(r"[.,?;*!%^&_+():<=>@\[\]{}\"/\\']", "", s).split() for s in sentences]
    return " ".join(" ".join([*sentence, "."]) for sentence in words if sentence)


def rouge_l(predicted: str, report: str) -> float:
    """ROUGE-L of one report, 0 to 1: the score that a single report has by itself."""
    from pycocoevalcap.rouge.rouge import Rouge

    return float(Rouge().calc_score([clean(predicted)], [clean(report)]))


def score(predicted: Sequence[str], reports: Sequence[str]) -> dict[str, float]:
    """``MEASURES`` over all reports, in percent; of CIDEr, whose usual scale ends at 10, too.

    BLEU is of the corpus, and CIDEr weighs words by how rare they are in ``reports``: neither is a
    mean over scores of single reports. Observations may be nan: no report asserts one.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    true = {i: [clean(report)] for i, report in enumerate(reports)}
    given = {i: [clean(report)] for i, report in enumerate(predicted)}
    bleu, _ = Bleu(4).compute_score(true, given, verbose=0)
    cider, _ = Cider().compute_score(true, given)
    rouge = np.mean([rouge_l(*pair) for pair in zip(predicted, reports, strict=True)])
    values = (*bleu, rouge, cider)
    wording = {name: 100 * float(value) for name, value in zip(WORDING, values, strict=True)}
    return wording | observations.score(predicted, reports)
