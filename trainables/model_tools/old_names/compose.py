"""The old name of ``trainables.model_tools.compose``."""

from trainables.model_tools.old_names import moved

moved("compose")
