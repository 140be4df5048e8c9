"""Credit of an answer by its first words: a lenient rule, for models that answer in sentences.

By the strict rule (``parts.answer_score``) "Yes, it is." is wrong where "yes" is right, as in the
official evaluation of VQA. LLaVA-Med's evaluation takes it for right (Li et al. 2023, arXiv
2306.00890). The strict rule gives no credit to right answers in sentences, as a model that was not
tuned to bare answers writes them.
"""

from __future__ import annotations

import re

from trainables.data.common.dataset import Example
from trainables.measures.common.normalize import normalize
from trainables.measures.common.parts import answer_score
from trainables.measures.common.scripts import words

_SENTENCE_END = re.compile(r"[.!?\n](?!\d)|[\u3002\uff01\uff1f]")
_LEAD_IN = re.compile(
    r"\A(?:(?:final |correct |short )?answer(?: is)?:?|(?:it|this|that|these|those) (?:is|are)|"
    r"(?:this )?(?:image|picture|scan|x ray) (?:is|shows|depicts)) "
)
"""Words, once normalised, with which a sentence leads to the answer."""


def lenient_score(predicted: str, example: Example) -> float:
    """Credit of one answer, from 0 to 1; never less than by the strict rule.

    An answer is also right if its first sentence begins with the words of the true one, after a
    lead-in such as "The answer is". Where the true answer is yes or no, an answer whose first
    sentence has only one of these two words gives that one. For reports and questions with options
    both rules are the same.
    """
    strict = answer_score(predicted, example)
    if strict or example.options or example.answer_type == "report":
        return strict
    true, given = _bare_words(example.answer), _first_words(predicted)
    if true in (["yes"], ["no"]):
        said = given[:1] if given[:1] in (["yes"], ["no"]) else sorted({"yes", "no"} & set(given))
        return float(said == true)
    return float(bool(true) and given[: len(true)] == true)


def _first_words(answer: str) -> list[str]:
    """Normalised words of an answer's first sentence, without a lead-in."""
    sentences = (_bare_words(sentence) for sentence in _SENTENCE_END.split(answer))
    first = " ".join(next(filter(None, sentences), []))
    return _LEAD_IN.sub("", first).split()


def _bare_words(text: str) -> list[str]:
    """Words of a text, normalised, without marks of emphasis and colons around them."""
    return list(filter(None, (word.strip(":*#\"'") for word in words(normalize(text)))))
