"""Fine-tuning methods, one per file."""
