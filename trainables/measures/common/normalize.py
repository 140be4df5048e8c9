"""Normalises answers, so that they can be compared."""

from __future__ import annotations

import re

from trainables.measures.common.scripts import folded, is_foreign_punctuation, without_blanks

_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}


def normalize(answer: str) -> str:
    """Bring an answer into the form in which answers are compared.

    The rules follow the official evaluation of VQA (Antol et al., "VQA: Visual Question Answering",
    ICCV 2015; ``PythonEvaluationTools/vqaEvaluation/vqaEval.py`` of github.com/GT-Vision-Lab/VQA):
    lower case, no punctuation (except points within numbers), number words as digits, no articles.
    Its table of contractions makes "dont" equal "don't"; here apostrophes are dropped, which has
    the same effect. A punctuation mark always separates words here; there it joins them if the text
    happens to have the same mark beside a blank elsewhere.

    Beyond those rules, which are for English, digits and punctuation of all scripts count as the
    ASCII ones do, Latin letters lose their accents (``scripts.folded``), and blanks in scripts that
    have none are dropped.

    >>> normalize("The X-ray, of two lungs.")
    'x ray of 2 lungs'
    >>> normalize("Sj\u00f6gren's")
    'sjogrens'
    >>> normalize("\uff12 \u809d\u3001 \u809d\u3002")
    '2\u809d\u809d'
    """
    text = folded(answer)
    text = text.replace("'", "").replace("\u2019", "")
    text = re.sub(r"(?<=\d),(?=\d)", "", text)  # 1,000
    text = re.sub(r"\.(?!\d)", "", text)  # 3.5 stays
    text = re.sub(r"[][;/\"{}()=+\\_\-><@`,?!]", " ", text)
    if not text.isascii():
        text = "".join(" " if is_foreign_punctuation(letter) else letter for letter in text)
        text = without_blanks(text)
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(word for word in words if word not in _ARTICLES)


def correct(predicted: str, answer: str) -> bool:
    """Whether two answers are equal once normalised."""
    return normalize(predicted) == normalize(answer)
