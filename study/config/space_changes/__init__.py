"""Changes a search space before it is run: as the user asks, and where values mean the same."""
