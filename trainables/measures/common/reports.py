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
from trainables.measures.common.scripts import folded, is_foreign_punctuation, words


def clean(report: str) -> str:
    """Bring a report into the form in which reports are compared.

    The rules are those of ``clean_report_iu_xray`` of R2Gen (Chen et al., EMNLP 2020;
    ``modules/tokenizers.py`` of github.com/cuhksz-nlp/R2Gen): lower case, no numbers of a list, no
    punctuation except hyphens and the points between sentences. R2Gen cleans reports, and cuts them
    after 60 words, before training and scoring. Here the predicted and the true report are cleaned
    when they are scored, and nothing is cut. Beyond those rules, which are for English, punctuation
    of all scripts is dropped, Latin letters lose their accents, and in a script without blanks each
    character is a word (``scripts``).

    >>> clean("1. Heart size normal; no effusion. 2. XXXX lungs are clear.")
    'heart size normal no effusion . xxxx lungs are clear .'
    """
    text = re.sub(r"\.{2,}", ".", folded(report)).replace("1. ", "")
    for before in (". ", " "):
        for number in "2345":
            text = text.replace(f"{before}{number}. ", ". ")
    sentences = [
        words(re.sub(r"[.,?;*!%^&_+():<=>@\[\]{}\"/\\']", "", _ascii_punctuation(sentence)))
        for sentence in text.strip().split(". ")
    ]
    return " ".join(" ".join([*sentence, "."]) for sentence in sentences if sentence)


def _ascii_punctuation(text: str) -> str:
    """A text with a comma in place of each punctuation mark that ASCII lacks."""
    return "".join("," if is_foreign_punctuation(letter) else letter for letter in text)


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
