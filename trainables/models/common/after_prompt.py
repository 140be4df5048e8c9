"""What a decoder writes after a prompt that is given as embeddings: losses and answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainables.model_contract import Batch, answer_losses


def in_one_piece(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Make the input of the output head contiguous.

    The head gets some tokens of each question. On a CPU, PyTorch would compute a batch of products,
    each with a copy of the whole vocabulary's weights; for a contiguous input it computes one.
    """
    (x_BTD,) = given
    return (x_BTD.contiguous(),)


def with_images(words_BQD: Tensor, image_BTD: Tensor, is_image_BQ: Tensor) -> Tensor:
    """Embeddings of prompts in which the T image tokens of each are its image's; (B, Q, D).

    ``masked_scatter`` gives the same, but in its gradient the host waits for a CUDA device.
    """
    place_BQ1 = (is_image_BQ.cumsum(1) - 1).clamp(min=0)[..., None]
    image_BQD = image_BTD.gather(1, place_BQ1.expand(-1, -1, image_BTD.shape[2]))
    return torch.where(is_image_BQ[..., None], image_BQD, words_BQD)


def losses_after(
    prompt_BQD: Tensor, decoder: Any, batch: Batch, smoothing: float, summed: bool
) -> Tensor:
    """Mean, or sum, of the negative log-likelihoods of answers that ``decoder`` writes after a
    prompt, which is given as embeddings; (B,). The prompt's padding is on its left."""
    answer_BAD = decoder.get_input_embeddings()(batch.answer_BA)
    mask_BT = torch.cat((batch.question_mask_BQ, batch.answer_mask_BA), dim=1)
    answers = batch.answer_BA.shape[1]
    logits_BAV = decoder(
        inputs_embeds=torch.cat((prompt_BQD, answer_BAD), dim=1),
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=answers + 1,  # from the prompt's last token on
    ).logits[:, :-1]
    return answer_losses(logits_BAV, batch.answer_BA, batch.answer_mask_BA, smoothing, summed)


def generate_after(prompt_BQD: Tensor, decoder: Any, batch: Batch, **settings: Any) -> Tensor:
    """Tokens that ``decoder`` writes after a prompt, which is given as embeddings, without
    sampling; (B, A). ``settings`` are those of transformers' ``generate``."""
    tokens_BA: Tensor = decoder.generate(
        inputs_embeds=prompt_BQD,
        attention_mask=batch.question_mask_BQ,
        do_sample=False,
        **settings,
    )
    return tokens_BA
