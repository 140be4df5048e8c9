"""Examples that need neither images nor a dataset."""

from __future__ import annotations

from pathlib import Path

from trainables.data.common.dataset import AnswerType, Example


def examples(*answers: tuple[AnswerType, str]) -> list[Example]:
    """An example for each answer type and answer."""
    return [
        Example(
            question_id=str(number),
            image_id="i",
            image=Path("/i.png"),
            question="?",
            answer=answer,
            answer_type=answer_type,
        )
        for number, (answer_type, answer) in enumerate(answers)
    ]


def reports(*texts: str) -> list[Example]:
    """An example for each report."""
    return examples(*(("report", text) for text in texts))
