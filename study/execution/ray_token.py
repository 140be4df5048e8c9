"""Token of the Ray that a study starts on its own machine."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray._private.authentication.authentication_token_setup import AUTH_MODE_ENV_VAR
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled

TOKEN, FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""Environment variables by which Ray and its processes find a token, and the file of one."""


@contextmanager
def own_token(folder: Path) -> Iterator[None]:
    """Give Ray a new token for the block, in a file of ``folder``. Nothing is done if the user has
    set a token, or wants none.

    Ray by itself would write its token below the user's home, which cannot be written to in many
    containers and on clusters' nodes, or read it there while something else writes it.
    """
    wanted = os.environ.get(AUTH_MODE_ENV_VAR, "token").lower() == "token"
    if not wanted or os.environ.get(TOKEN) or os.environ.get(FILE):
        yield
        return
    file, loader = folder / "auth_token", AuthenticationTokenLoader.instance()
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32), encoding="ascii")
    os.environ[FILE] = str(file)
    loader.reset_cache()
    try:
        yield
    finally:
        del os.environ[FILE]
        loader.reset_cache()
