"""A space for benchmarks: MILE's cheaper setting, in which the image encoder stays as it is."""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method

STILL = method("frozen")
LORA, LAYERNORM = method("lora", rank=Choice(2, 4, 8, 16, 32)), method("layernorm")

SPACE = Space(
    question="Does tuning only the LayerNorms of the text stacks match LoRA on them?",
    arms={
        "layernorm": Arm(
            vision=STILL, fusion=LAYERNORM, decoder=LAYERNORM, lr=LogUniform(1e-4, 1e-1)
        ),
        "lora": Arm(vision=STILL, fusion=LORA, decoder=LORA, lr=LogUniform(1e-5, 3e-2)),
    },
    budget=Budget(trials=24, max_examples=3200, rungs=2, batch_size=16),
)
