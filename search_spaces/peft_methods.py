"""Methods that add parameters to a frozen model, each at its best settings.

Every learning rate spans four decades around the values at which its method is usually run.
"""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method

MATRICES, VECTORS = LogUniform(1e-5, 1e-1), LogUniform(1e-4, 1.0)
RANK, TOKENS = Choice(2, 4, 8, 16, 32), Choice(5, 10, 20, 50)
RATIO = Choice(2.0, 4.0, 8.0, 16.0)

SPACE = Space(
    question="Which adapter is best, if the model itself stays frozen?",
    arms={
        "lora": Arm(everywhere=method("lora", rank=RANK), lr=MATRICES),
        "rslora": Arm(everywhere=method("lora", rank=RANK, rank_stabilized=True), lr=MATRICES),
        "lora_plus": Arm(everywhere=method("lora", rank=RANK, lr_ratio=RATIO), lr=MATRICES),
        "dora": Arm(everywhere=method("dora", rank=RANK), lr=MATRICES),
        "adapter": Arm(everywhere=method("adapter", width=Choice(8, 16, 32, 64)), lr=MATRICES),
        "oft": Arm(everywhere=method("oft", block=Choice(8, 16, 32)), lr=MATRICES),
        "vera": Arm(everywhere=method("vera", rank=Choice(64, 256, 1024)), lr=VECTORS),
        "ia3": Arm(everywhere=method("ia3"), lr=VECTORS),
        "prefix": Arm(everywhere=method("prefix", tokens=TOKENS), lr=MATRICES),
        "ptv2": Arm(everywhere=method("ptv2", tokens=TOKENS), lr=VECTORS),
        "prompt": Arm(everywhere=method("prompt", tokens=TOKENS), lr=VECTORS),
    },
    budget=Budget(max_examples=6400),
)
