"""LayerNorm tuning (arXiv 2312.11420) against LoRA, each at its best: the main question.

LoRA is to be as strong as it can be, so which layers get it is searched too: from ``query,value``,
as its authors did, to ``all``, as QLoRA's authors advise (arXiv 2305.14314). That makes 60
combinations of rank, alpha and targets beside the learning rate; ``--set lora.targets=query+value``
leaves 15. LayerNorm has its learning rate alone, so more ``--trials`` serve LoRA.
"""

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method

SPACE = Space(
    question="Does tuning only LayerNorm match LoRA?",
    arms={
        "layernorm": Arm(everywhere=method("layernorm"), lr=LogUniform(1e-4, 1e-1)),
        "lora": Arm(
            everywhere=method(
                "lora",
                rank=Choice(2, 4, 8, 16, 32),
                alpha_per_rank=Choice(1.0, 2.0, 4.0),
                targets=Choice("query,value", "attention", "ffn", "all"),
            ),
            lr=LogUniform(1e-5, 3e-2),
        ),
    },
    budget=Budget(max_examples=3200, rungs=2, batch_size=16),
)
