"""The old name of ``trainables.model_tools.convert_llava``."""

from trainables.model_tools.old_names import moved

moved("convert_llava")
