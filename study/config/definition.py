"""Checks of a study's definition that need heavy imports."""

from __future__ import annotations

from study.config.settings import Settings
from trainables.errors import BadInput


def check_engine(settings: Settings) -> None:
    """Check the user's own DeepSpeed configuration, if there is one. Importing DeepSpeed takes
    seconds.

    Raises:
        BadInput: DeepSpeed refuses the configuration.
    """
    given = settings.configuration()
    if given:
        from trainables.engine.deepspeed_engine import check_configuration

        try:
            check_configuration(given)
        except BadInput as error:
            raise BadInput(f"--deepspeed {settings.deepspeed}: {error}") from None
