"""Cleans reports so that they can be compared, and gives the ROUGE-L of a single one.

BLEU, ROUGE-L and CIDEr are ``pycocoevalcap``'s, which the literature on report generation uses,
after R2Gen's cleaning, so that the numbers can be compared with published ones. They measure
wording, and do not know whether a finding is asserted or denied.
``trainables.measures.observations`` does, for chest reports, by rules. (CheXbert and RadGraph need
weights of their own.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainables.data.common.dataset import Example


def clean(report: str) -> str:
    """Bring a report into the form in which reports are compared.

    The rules are those of ``clean_report_iu_xray`` of R2Gen (Chen et al., EMNLP 2020;
    ``modules/tokenizers.py`` of github.com/cuhksz-nlp/R2Gen): lower case, no numbers of a list, no
    punctuation except hyphens and the points between sentences. R2Gen cleans reports, and cuts them
    after 60 words, before training and scoring. Here the predicted and the true report are cleaned
    when they are scored, and nothing is cut.

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
    """ROUGE-L of a single report, from 0 to 1."""
    from pycocoevalcap.rouge.rouge import Rouge

    return float(Rouge().calc_score([clean(predicted)], [clean(report)]))


def cleaned(
    predicted: Sequence[str], examples: Sequence[Example]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Clean predicted and true reports, in the form that ``pycocoevalcap``'s scorers take."""
    given = {i: [clean(report)] for i, report in enumerate(predicted)}
    return given, {i: [clean(example.answer)] for i, example in enumerate(examples)}
