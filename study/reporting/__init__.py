"""Shows a study's answer: the report, its figures and tables, and exported models."""
