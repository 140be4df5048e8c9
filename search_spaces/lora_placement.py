"""LoRA's place in a model: which slots and layers get it, and at which rank.

An arm names the slots with LoRA; the others stay frozen. ``query,value`` is where LoRA's authors
put it (Hu et al. 2021, arXiv 2106.09685), and ``all`` where QLoRA's found that full fine-tuning is
matched (Dettmers et al. 2023, arXiv 2305.14314). Targets and rank are searched jointly, so that few
layers of a high rank meet many of a low one.
"""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method

LORA = method(
    "lora", targets=Choice("query,value", "attention", "ffn", "all"), rank=Choice(2, 8, 32)
)
LR = LogUniform(1e-5, 3e-2)

SPACE = Space(
    question="Where should LoRA go, and at which rank?",
    arms={
        "everywhere": Arm(everywhere=LORA, lr=LR),
        "vision": Arm(vision=LORA, lr=LR),
        "decoder": Arm(decoder=LORA, lr=LR),
        "vision_decoder": Arm(vision=LORA, decoder=LORA, lr=LR),
    },
    budget=Budget(max_examples=3200, rungs=2, batch_size=16),
)
