"""Parts of a model, each trained alone, against full fine-tuning and PEFT methods.

This is the comparison of *LayerNorm as a Catalyst* (arXiv 2312.11420). Every learning rate spans
four decades around the values at which its method is usually run: low ones for full fine-tuning,
which moves all weights at once, and high ones for a handful of vectors or tokens, which have far to
go.
"""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method

WEIGHTS, MATRICES, VECTORS = LogUniform(1e-6, 1e-2), LogUniform(1e-5, 1e-1), LogUniform(1e-4, 1.0)
RANK, TOKENS = Choice(2, 4, 8, 16, 32), Choice(5, 10, 20, 50)

SPACE = Space(
    question="Which of a model's own parts is worth training, and is any adapter better?",
    arms={
        "layernorm": Arm(everywhere=method("layernorm"), lr=MATRICES),
        "bitfit": Arm(everywhere=method("bitfit"), lr=MATRICES),
        "attention": Arm(everywhere=method("attention"), lr=WEIGHTS),
        "ffn": Arm(everywhere=method("ffn"), lr=WEIGHTS),
        "full": Arm(everywhere=method("full"), lr=WEIGHTS),
        "lora": Arm(everywhere=method("lora", rank=RANK), lr=MATRICES),
        "dora": Arm(everywhere=method("dora", rank=RANK), lr=MATRICES),
        "adapter": Arm(everywhere=method("adapter", width=Choice(8, 16, 32, 64)), lr=MATRICES),
        "ia3": Arm(everywhere=method("ia3"), lr=VECTORS),
        "prefix": Arm(everywhere=method("prefix", tokens=TOKENS), lr=MATRICES),
        "ptv2": Arm(everywhere=method("ptv2", tokens=TOKENS), lr=VECTORS),
        "prompt": Arm(everywhere=method("prompt", tokens=TOKENS), lr=VECTORS),
    },
    budget=Budget(max_examples=6400),
)
