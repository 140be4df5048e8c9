"""Commands that make models: by conversion, by composition or from scratch."""
