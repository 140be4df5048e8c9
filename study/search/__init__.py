"""Decides which trial runs next and which goes on; knows nothing of Ray."""
