"""The smallest study that goes through every part of the system. Its answer means nothing."""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method

SPACE = Space(
    question="Does everything work? (A smoke test: its answer means nothing.)",
    arms={
        "layernorm": Arm(everywhere=method("layernorm"), lr=LogUniform(1e-3, 1e-1)),
        "lora": Arm(everywhere=method("lora", rank=Choice(2, 8)), lr=LogUniform(1e-4, 3e-2)),
    },
    budget=Budget(trials=4, max_examples=192, rungs=1),
)
