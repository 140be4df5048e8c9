"""``python -m study.train``: what is wrong is said in a line, before anything is loaded."""

import pytest

from study import train


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "smok"], "unknown space 'smok'; did you mean 'smoke'?"),
        (["--space", "smoke", "--arm", "lora", "--set", "lora.rnak=8"], "did you mean 'lora.rank'"),
        (["--space", "smoke", "--arm", "lora", "--set", "lr=x"], "must be a number, not 'x'"),
        (["--space", "smoke", "--arm", "lora", "--every", "0"], "--every must be at least 1"),
        (["--space", "smoke", "--arm", "lora", "--threads", "0"], "--threads must be at least 1"),
        (["--space", "smoke", "--set", "lr=1", "lora.rank=2"], "has several arms; give --arm"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err and len(shown.err.splitlines()) == 1 and shown.out == ""
