"""Settings as text."""

from study.trials.text import settings_text, short


def test_a_prompt_is_quoted_on_one_line() -> None:
    said = settings_text(
        {"lr": 0.00123, "prompt": 'Look.\n{question} "briefly"', "schedule": "cosine"}
    )
    assert said == 'lr=0.00123 prompt="Look.\\n{question} \\"briefly\\"" schedule=cosine'
    assert short("{question}") == "{question}"
