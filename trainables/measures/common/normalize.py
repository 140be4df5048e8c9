"""Normalises answers, so that they can be compared."""

from __future__ import annotations

import re
import unicodedata

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
    happens to have the same mark beside a blank elsewhere. Letters lose their accents, which a
    model whose tokens have none cannot write.

    >>> normalize("The X-ray, of two lungs.")
    'x ray of 2 lungs'
    >>> normalize("Sj\u00f6gren's")
    'sjogrens'
    """
    marked = unicodedata.normalize("NFD", answer.lower())
    text = "".join(letter for letter in marked if not unicodedata.combining(letter))
    text = text.replace("'", "").replace("\u2019", "")
    text = re.sub(r"(?<=\d),(?=\d)", "", text)  # 1,000
    text = re.sub(r"\.(?!\d)", "", text)  # 3.5 stays
    text = re.sub(r"[][;/\"{}()=+\\_\-><@`,?!]", " ", text)
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(word for word in words if word not in _ARTICLES)


def correct(predicted: str, answer: str) -> bool:
    """Whether two answers are equal once normalised."""
    return normalize(predicted) == normalize(answer)
