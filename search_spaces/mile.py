"""The 23 recipes of MILE (arXiv 2403.06407), each with a learning rate of its own.

MILE is *Can LLMs' Tuning Methods Work in Medical Multimodal Domain?* (MICCAI 2024), and the recipes
are the rows of its Tables 1 to 4. The name of an arm lists what its row does in vision, fusion and
decoder, where F is frozen and T is trained in full. The paper used the learning rate 1e-5 in every
row.
"""

from search_spaces.declare import Arm, LogUniform, MethodRanges, Space, method

F, T = method("frozen"), method("full")
PREFIX, PTV2 = method("prefix"), method("ptv2")
OUTPUTS = ("attention_output", "ffn_out")
IA3 = method("ia3", targets=("key", "value"), feedforward=OUTPUTS)
VISION_IA3 = method("ia3", targets=("ffn_out",), feedforward=("ffn_out",))
LAYERS = ("patch", "qkv", "attention_output", "ffn_in", "ffn_out")


def lora(rank: int) -> MethodRanges:
    """LoRA on query and value of the text stacks, with alpha 32."""
    return method("lora", rank=rank, alpha_per_rank=32 / rank, dropout=0.1)


def vision_lora(rank: int) -> MethodRanges:
    """LoRA on the patch embedding and every linear layer of the image encoder, with alpha 32."""
    return method("lora", rank=rank, alpha_per_rank=32 / rank, dropout=0.1, targets=LAYERS)


def row(vision: MethodRanges, fusion: MethodRanges, decoder: MethodRanges) -> Arm:
    """An arm for one row of the tables."""
    return Arm(vision=vision, fusion=fusion, decoder=decoder, lr=LogUniform(1e-6, 1e-2))


SPACE = Space(
    question="Which of MILE's 23 recipes is best, once each has a learning rate of its own?",
    arms={
        "F_lora4_lora4": row(F, lora(4), lora(4)),
        "F_lora8_lora8": row(F, lora(8), lora(8)),
        "lora4_lora4_lora4": row(vision_lora(4), lora(4), lora(4)),
        "lora8_lora8_lora8": row(vision_lora(8), lora(8), lora(8)),
        "F_T_lora4": row(F, T, lora(4)),
        "F_T_lora8": row(F, T, lora(8)),
        "T_lora4_lora4": row(T, lora(4), lora(4)),
        "T_lora8_lora8": row(T, lora(8), lora(8)),
        "T_T_lora4": row(T, T, lora(4)),
        "T_T_lora8": row(T, T, lora(8)),
        "F_F_prefix": row(F, F, PREFIX),
        "F_prefix_prefix": row(F, PREFIX, PREFIX),
        "T_prefix_prefix": row(T, PREFIX, PREFIX),
        "T_T_prefix": row(T, T, PREFIX),
        "F_ia3_ia3": row(F, IA3, IA3),
        "ia3_ia3_ia3": row(VISION_IA3, IA3, IA3),
        "T_ia3_ia3": row(T, IA3, IA3),
        "F_T_ia3": row(F, T, IA3),
        "T_T_ia3": row(T, T, IA3),
        "F_ptv2_ptv2": row(F, PTV2, PTV2),
        "F_F_ptv2": row(F, F, PTV2),
        "T_ptv2_ptv2": row(T, PTV2, PTV2),
        "T_T_ptv2": row(T, T, PTV2),
    },
)
