"""Frozen, full or adapter tuning for each slot: MILE's question (arXiv 2403.06407)."""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method

RANK = Choice(4, 8, 16)
LR = LogUniform(1e-5, 1e-2)
FROZEN, FULL = method("frozen"), method("full")
LORA, LAYERNORM, IA3 = method("lora", rank=RANK), method("layernorm"), method("ia3")

SPACE = Space(
    question="Which parts of the model should be trained in full, and which with an adapter?",
    arms={
        "frozen_full_lora": Arm(vision=FROZEN, fusion=FULL, decoder=LORA, lr=LR),
        "frozen_lora_lora": Arm(vision=FROZEN, fusion=LORA, decoder=LORA, lr=LR),
        "layernorm_full_lora": Arm(vision=LAYERNORM, fusion=FULL, decoder=LORA, lr=LR),
        "full_full_ia3": Arm(vision=FULL, fusion=FULL, decoder=IA3, lr=LR),
        "full_lora_lora": Arm(vision=FULL, fusion=LORA, decoder=LORA, lr=LR),
    },
    budget=Budget(max_examples=6400),
)
