"""Texts of any script, in the form in which answers and reports are compared."""

from __future__ import annotations

import re
import unicodedata

_UNSPACED = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese syllables, and marks of repetition
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
"""Characters of the scripts that put no blanks between words."""
_CHARACTER = re.compile(rf"[{_UNSPACED}]")
_BLANKS = re.compile(rf"(?<=[{_UNSPACED}])\s+|\s+(?=[{_UNSPACED}])")
_AS_ASCII = str.maketrans(
    {"\u066b": ".", "\u066c": ",", "\u3002": ". ", "\u2044": "/", "\u2212": "-"}
)
"""Decimal and thousands separator of Arabic, full stop of Chinese and Japanese, slash of fractions
and minus -> the ASCII character that means the same."""


def folded(text: str) -> str:
    """A text in lower case and without differences of writing that carry no meaning.

    Compatible characters become one (Unicode's NFKC: full and half width), and digits and hyphens
    of any script those of ASCII. Latin letters lose their accents, which the tokens of an uncased
    model cannot write. Marks of other scripts stay, since they tell words apart: "\u304c" is not
    "\u304b".

    >>> folded("Sj\u00f6gren \uff13\uff0e\uff15")
    'sjogren 3.5'
    """
    if text.isascii():
        return text.lower()
    letters: list[str] = []
    latin = False
    for letter in unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).lower()):
        if not unicodedata.combining(letter):
            latin = "LATIN" in unicodedata.name(letter, "")
        elif latin:
            continue
        digit = unicodedata.decimal(letter, None)
        dash = unicodedata.category(letter) == "Pd"
        letters.append("-" if dash else letter if digit is None else str(digit))
    return unicodedata.normalize("NFKC", "".join(letters)).translate(_AS_ASCII)


def is_foreign_punctuation(letter: str) -> bool:
    """Whether a character is a punctuation mark that ASCII lacks."""
    return not letter.isascii() and unicodedata.category(letter).startswith("P")


def without_blanks(text: str) -> str:
    """A text without the blanks beside characters of a script that has none. A tokenizer with a
    token for each of them, such as BERT's, writes such blanks.

    >>> without_blanks("x \u5149 the lung")
    'x\u5149the lung'
    """
    return _BLANKS.sub("", text)


def words(text: str) -> list[str]:
    """The words of a text; in a script without blanks, each character is one.

    Measures of Chinese text count characters, as sacreBLEU's tokenizer ``zh`` does (Post 2018,
    aclanthology.org/W18-6319).

    >>> words("x\u5149 the lung")
    ['x', '\u5149', 'the', 'lung']
    """
    return text.split() if text.isascii() else _CHARACTER.sub(r" \g<0> ", text).split()
