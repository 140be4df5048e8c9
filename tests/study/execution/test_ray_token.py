"""The token of a local Ray."""

import os
from pathlib import Path

import pytest
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled

from study.execution.ray_token import FILE, TOKEN, own_token


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    for name in (TOKEN, FILE, "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_local_ray_has_a_token_of_its_own_while_it_runs(tmp_path: Path) -> None:
    loader, tokens = AuthenticationTokenLoader.instance(), []
    for name in "ab":
        (tmp_path / name).mkdir()
        with own_token(tmp_path / name):
            file = Path(os.environ[FILE])
            assert file.parent == tmp_path / name
            assert file.stat().st_mode & 0o777 == 0o600
            assert loader.has_token(ignore_auth_mode=True)
            tokens.append(file.read_text())
        assert FILE not in os.environ
    assert len({*tokens}) == 2 and all(len(token) == 64 for token in tokens)


@pytest.mark.parametrize(
    ("name", "value"), [(TOKEN, "0" * 64), (FILE, "/a/file"), ("RAY_AUTH_MODE", "disabled")]
)
def test_what_the_user_says_of_tokens_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with own_token(tmp_path):
        assert os.environ[name] == value
        assert not [*tmp_path.iterdir()]
        assert name == FILE or FILE not in os.environ
