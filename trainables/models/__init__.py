"""Model families, one per file."""

from pathlib import Path

# Commands that moved to trainables.model_tools say so under the names that they had here.
__path__.append(str(Path(__file__).parents[1] / "model_tools" / "old_names"))
