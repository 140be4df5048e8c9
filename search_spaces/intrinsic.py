"""The comparison of *LayerNorm as a Catalyst*: a model's own parts against each other and LoRA."""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method

LR = LogUniform(1e-5, 3e-2)

SPACE = Space(
    question="Which of a model's own parts is worth training?",
    arms={
        "layernorm": Arm(everywhere=method("layernorm"), lr=LogUniform(1e-4, 1e-1)),
        "attention": Arm(everywhere=method("attention"), lr=LR),
        "ffn": Arm(everywhere=method("ffn"), lr=LR),
        "full": Arm(everywhere=method("full"), lr=LR),
        "lora": Arm(everywhere=method("lora", rank=Choice(2, 4, 8, 16, 32)), lr=LR),
    },
    budget=Budget(trials=60, max_examples=6400),
)
