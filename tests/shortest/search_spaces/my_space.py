"""Factors on outputs, or matrices beside weights?"""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method

SPACE = Space(
    question="Is a factor for each output enough?",
    arms={
        "my_method": Arm(everywhere=method("my_method"), lr=LogUniform(1e-3, 1e-1)),
        "lora": Arm(everywhere=method("lora", rank=Choice(2, 4)), lr=LogUniform(1e-3, 1e-1)),
    },
    budget=Budget(trials=4, max_examples=96, rungs=1, batch_size=16),
)
