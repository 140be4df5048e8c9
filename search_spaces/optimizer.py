"""LoRA as it is mostly trained, with AdamW's other settings searched too, and with Muon: what does
the training recipe add to the method?

``--set adamw/optimizer=adamw_8bit`` asks the same of AdamW with a state of 8 bits, which needs the
package bitsandbytes.
"""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method, training

LORA = method("lora", rank=Choice(2, 8, 32))
LR = LogUniform(1e-5, 3e-2)
WEIGHT_DECAY = Choice(0.0, 0.01, 0.1)
WARMUP = Choice(0.0, 0.05, 0.2)
SCHEDULE = Choice("cosine", "linear", "constant")

SPACE = Space(
    question="Does LoRA gain from another optimizer, schedule or weight decay?",
    arms={
        "defaults": Arm(everywhere=LORA, lr=LR),
        "adamw": Arm(
            everywhere=LORA,
            lr=LR,
            training=training(
                weight_decay=WEIGHT_DECAY,
                warmup=WARMUP,
                schedule=SCHEDULE,
                beta2=Choice(0.95, 0.999),
            ),
        ),
        "muon": Arm(
            everywhere=LORA,
            lr=LR,
            training=training(
                optimizer="muon", weight_decay=WEIGHT_DECAY, warmup=WARMUP, schedule=SCHEDULE
            ),
        ),
    },
    budget=Budget(max_examples=3200, rungs=2, batch_size=16),
)
