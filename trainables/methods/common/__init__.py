"""Selection of layers, soft prompts, virtual tokens and bottlenecks: what methods share."""
