"""Search spaces: the questions that studies answer, with their arms and ranges of settings."""
