"""How questions are put to a model: which prompts there can be, and where options stand."""

from __future__ import annotations

import pytest

from trainables.data.common.wording import BARE, DEFAULT_ASKING, LONGEST, Asking, Wording
from trainables.errors import BadInput


def test_the_default_adds_nothing() -> None:
    assert DEFAULT_ASKING.wording() == BARE
    assert BARE.around("is this a ct ?") == "is this a ct ?"


def test_options_follow_the_question_within_the_prompt() -> None:
    asking = Asking(prompt="Look. {question}\nAnswer:", system=" You read X-rays. ")
    wording = asking.wording(["yes {question}", "no"])
    assert wording.around("Is it?") == "Look. Is it?\nA: yes {question}\nB: no\nAnswer:"
    assert wording.system == "You read X-rays."


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Answer.", r"must have \{question\} once, .* but has it 0 times"),
        ("", "but has it 0 times"),
        ("{question} {question}", "but has it 2 times"),
        ("{question} {options}", r"has \{options\}; the only placeholder is \{question\}"),
        ("{questoin}", r"has \{questoin\}; the only placeholder is \{question\}"),
        ("{}", r"has \{\}; the only placeholder"),
        (3, "prompt must be a text but got 3"),
        ("{question}" + "x" * LONGEST, r"prompt has 4,010 characters; at most 4,000 are allowed"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused_in_one_line(prompt: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as error:
        Asking(prompt=prompt)
    assert "\n" not in str(error.value)


def test_other_braces_are_text() -> None:
    assert Asking(prompt='{question} Answer as {"answer": ...}.').wording().after


@pytest.mark.parametrize(
    ("system", "said"), [("  ", "system is blank"), ("{question}", "which is for the prompt")]
)
def test_a_system_message_that_cannot_be_is_refused(system: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Asking(system=system)


def test_a_model_without_a_chat_template_refuses_a_system_message() -> None:
    BARE.refuse_system("tiny")
    with pytest.raises(BadInput, match="tiny takes no system message: it has no chat template"):
        Wording(system="You read X-rays.").refuse_system("tiny")
