"""The old name of ``trainables.model_tools.pretrain_tiny``."""

from trainables.model_tools.old_names import moved

moved("pretrain_tiny")
