"""Train the small model that ships with the project, from scratch.

The command is ``python -m trainables.model_tools.pretrain_tiny``. The model is a BLIP of a few
million parameters. It has seen general pictures with questions about them
(``tiny_pretraining.pictures``, ``tiny_pretraining.picture_questions``), and general and
radiology-like sentences (``tiny_pretraining.sentences``). It has seen no image and no question of
any dataset of this project, so that fine-tuning it is transfer, as it is for a real base model.

An answer teaches the image encoder one fact of a picture. To learn faster, the encoder is also
asked for all the facts at once, by linear heads that are thrown away at the end.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.command import command
from trainables.engine.start import resolve_precision
from trainables.errors import BadInput
from trainables.model_contract import Batch
from trainables.model_lookup import TINY
from trainables.model_tools.blip_folder import check_writable, write
from trainables.model_tools.tiny_pretraining import sentences
from trainables.model_tools.tiny_pretraining.fact_heads import FactHeads
from trainables.model_tools.tiny_pretraining.model_card import card
from trainables.model_tools.tiny_pretraining.muon import Muon
from trainables.model_tools.tiny_pretraining.network import make_network, make_tokenizer, whiten
from trainables.model_tools.tiny_pretraining.picture_questions import ask
from trainables.model_tools.tiny_pretraining.pictures import Picture, draw
from trainables.models.blip import Blip
from trainables.models.common.clip import pixels
from trainables.options import Parser, option, parse


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Length, size and seed of the pretraining. Every field is an option of the command."""

    out: Path = option(TINY, help="folder of the model", default="the one that ships")
    seed: int = option(0, help="seed of the weights and of the pictures")
    look_steps: int = option(3000, help="steps on pictures and sentences, before those on answers")
    answer_steps: int = option(1500, help="steps on questions and answers")
    pictures_per_step: int = option(32, help="pictures of a step")
    questions_per_picture: int = option(3, help="questions about each of them")
    sentences_per_step: int = option(32, help="texts of a step without a picture of their own")
    peak_lr: float = option(1e-3, help="peak learning rate")
    held_out_pictures: int = option(500, help="pictures that the model is scored on at the end")
    threads: int = option(2, help="number of CPU threads")

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing can be trained, before any time is spent."""
        for name, value in vars(self).items():
            least = 0 if name == "seed" else 1
            if isinstance(value, int) and value < least:
                given = f"--{name.replace('_', '-')} {value}"
                raise BadInput(f"{given} is too small; give at least {least}")
        if not 0 < self.peak_lr < math.inf:
            raise BadInput(f"--peak-lr {self.peak_lr} is not positive; 0.001 is the usual")


def _images(pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Pixels of the pictures; shape (U, 96, 96, 3)."""
    return np.stack([picture.pixels for picture in pictures])


def picture_batch(
    rng: np.random.Generator, model: Blip, pictures: Sequence[Picture], questions_each: int
) -> Batch:
    """A batch of several questions about each picture; the image encoder sees each picture once."""
    asked = [(i, ask(rng, p.facts)) for i, p in enumerate(pictures) for _ in range(questions_each)]
    rows = [model.tokenize(question=q, answer=a, image=i) for i, (q, a) in asked]
    return model.collate(rows, _images(pictures))


def sentence_batch(
    rng: np.random.Generator, model: Blip, pictures: Sequence[Picture], count: int
) -> Batch:
    """A batch of texts with questions, beside a few pictures that have nothing to do with them."""
    asked = [sentences.read(rng) for _ in range(count)]
    rows = [
        model.tokenize(question=q, answer=a, image=i % min(4, len(pictures)))
        for i, (q, a) in enumerate(asked)
    ]
    return model.collate(rows, _images(pictures))


def train(config: PretrainConfig, model: Blip) -> None:
    """Train in two stages: the image encoder alone on the facts, then everything on the answers."""
    rng = np.random.default_rng(config.seed)
    network = model.network.train().requires_grad_(True)
    heads = FactHeads(network.vision_model.embeddings.embed_dim)

    def look() -> dict[str, Tensor]:
        pictures = [draw(rng) for _ in range(config.pictures_per_step)]
        image_UTD = network.vision_model(pixels(_images(pictures))).last_hidden_state
        return {"facts": heads(image_UTD, pictures)}

    seen: list[Tensor] = []  # output of the image encoder, for the heads

    def answer() -> dict[str, Tensor]:
        seen.clear()
        pictures = [draw(rng) for _ in range(config.pictures_per_step)]
        on_pictures = picture_batch(rng, model, pictures, config.questions_per_picture)
        on_sentences = sentence_batch(rng, model, pictures, config.sentences_per_step)
        picture_loss = model.losses(network, on_pictures).mean()
        facts = 0.5 * heads(seen[0], pictures)
        sentence_loss = 0.5 * model.losses(network, on_sentences).mean()
        return {"pictures": picture_loss, "facts": facts, "sentences": sentence_loss}

    whiten(network, _images([draw(rng) for _ in range(400)]))
    _stage(
        "look", _optimizers(network.vision_model, heads, config.peak_lr), look, config.look_steps
    )
    hook = network.vision_model.register_forward_hook(
        lambda module, given, output: seen.append(output.last_hidden_state)
    )
    _stage("answer", _optimizers(network, heads, config.peak_lr), answer, config.answer_steps)
    hook.remove()
    network.eval().requires_grad_(False)


def _optimizers(
    part: nn.Module, heads: FactHeads, peak_lr: float
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices of hidden layers, AdamW for embeddings, outputs and vectors.

    Muon needs far fewer pictures: after 800 steps of the first stage the encoder named 41% of the
    outlines, with AdamW alone 14%.
    """
    # The word embeddings are tied to the last linear layer of the decoder.
    words = {id(m.weight) for m in part.modules() if isinstance(m, nn.Embedding)}
    linears = [m.weight for m in part.modules() if isinstance(m, nn.Linear)]
    matrices = [weight for weight in linears if id(weight) not in words]
    hidden = {id(weight) for weight in matrices}
    others = [p for p in (*part.parameters(), *heads.parameters()) if id(p) not in hidden]
    return (
        Muon(matrices, lr=3 * peak_lr),
        torch.optim.AdamW(others, lr=peak_lr, betas=(0.9, 0.98), weight_decay=0.0),
    )


def _stage(
    name: str,
    optimizers: Sequence[torch.optim.Optimizer],
    losses_of_step: Callable[[], dict[str, Tensor]],
    steps: int,
) -> None:
    """Minimise the sum of the losses of a step, with 5% warm-up and then a cosine schedule.

    The weights stay in fp32; bf16 is only for matrix products, where the CPU is fast in it.
    """
    bf16 = resolve_precision("auto") == "bf16"
    warmup = max(1, steps // 20)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda i: min(1, (i + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * i / steps)),
        )
        for optimizer in optimizers
    ]
    started, shown = time.perf_counter(), Counter[str]()
    for step in range(1, steps + 1):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            losses = losses_of_step()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        shown.update({kind: loss.item() for kind, loss in losses.items()})
        if step % 100 == 0 or step == steps:
            count = (step - 1) % 100 + 1
            means = ", ".join(f"{kind} {total / count:.3f}" for kind, total in shown.items())
            print(
                f"{name} {step}/{steps}  {time.perf_counter() - started:.0f} s  {means}", flush=True
            )
            shown.clear()


def held_out(config: PretrainConfig, model: Blip) -> dict[str, float]:
    """Share of exactly right answers on pictures and sentences drawn from another seed."""
    rng = np.random.default_rng([config.seed, 1])
    right: dict[str, list[bool]] = {"pictures": [], "sentences": []}
    at_once = min(50, config.held_out_pictures)
    for _ in range(config.held_out_pictures // at_once):
        pictures = [draw(rng) for _ in range(at_once)]
        for name, batch in (
            ("pictures", picture_batch(rng, model, pictures, 4)),
            ("sentences", sentence_batch(rng, model, pictures, 2 * at_once)),
        ):
            wanted = model.tokenizer.batch_decode(batch.answer_BA, skip_special_tokens=True)
            given = model.answers(model.network, batch)
            right[name] += [a == b for a, b in zip(wanted, given, strict=True)]
    return {name: float(np.mean(values)) for name, values in right.items()}


def run(config: PretrainConfig) -> dict[str, float]:
    """Pretrain, measure and save the model; return its held-out accuracies.

    Raises:
        BadInput: the folder can't be written.
    """
    check_writable("--out", config.out)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    tokenizer = make_tokenizer()
    network = make_network(tokenizer)
    model = Blip(name="tiny", digest="", network=network, tokenizer=tokenizer)
    count = sum(p.numel() for p in network.parameters())
    print(f"{count:,} parameters, {len(tokenizer):,} word pieces", flush=True)
    started = time.perf_counter()
    train(config, model)
    minutes = (time.perf_counter() - started) / 60
    module: nn.Module = network
    module.half().float()  # rounds the weights, so that those measured are those saved
    scores = held_out(config, model)
    figures = {f"held out, {name}": f"{100 * score:.1f}%" for name, score in scores.items()}
    print(", ".join(f"{name}: {figure}" for name, figure in figures.items()))
    figures |= {
        "pretraining": f"{minutes:.0f} minutes, {config.threads} CPU threads",
        "seed": str(config.seed),
        "torch": str(torch.__version__),
    }
    module.half()
    plan = {"look_steps": config.look_steps, "answer_steps": config.answer_steps}
    write(config.out, model, card(model, plan, figures))
    return scores


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    run(parse(parser, arguments, PretrainConfig))
    return 0


if __name__ == "__main__":
    sys.exit(main())
