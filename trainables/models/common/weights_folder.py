"""Reads a model folder in the layout of Hugging Face, or refuses it with a one-line error."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from trainables.errors import BadInput

GENERATION = "generation_config.json"
SHOWN = 300
"""Letters of transformers' own errors that a line quotes."""


def read(
    kind: type[PreTrainedModel],
    path: Path,
    *,
    called: str,
    dtype: torch.dtype,
    part: bool = False,
) -> Any:
    """Read the network of the folder ``path``, frozen and in evaluation mode.

    Nothing in the folder is executed: weights are safetensors, and remote code stays off.

    Args:
        kind: the network's class in transformers.
        path: the folder.
        called: the family's name, for errors.
        dtype: type of the weights in memory, whatever they are stored in.
        part: whether the folder may hold more weights than the class, say those of a head.

    Raises:
        BadInput: a file is missing or damaged; a weight is missing, unexpected or of another shape.
    """
    with configuring(path, called):
        parser: Any = kind.config_class
        config = parser.from_pretrained(path, local_files_only=True)
    if (path / GENERATION).is_file():  # transformers reads it once more, with the weights
        with reading(f"{path / GENERATION} can't be read"):
            GenerationConfig.from_pretrained(path, local_files_only=True)
    hf_logging.disable_progress_bar()
    logging.getLogger("transformers.modeling_utils").addFilter(_is_news)
    try:
        loaded: Any = kind.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # the loading report lists them; they are refused below
            output_loading_info=True,
        )
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} can't be read as a {called} model: {error}") from error
    except Exception:  # a setting of no sense raises nearly any; without weights it does too
        with configuring(path, called), torch.device("meta"):
            kind(config)
        raise
    network, report = loaded
    if part:
        del report["unexpected_keys"]
    wrong = {kind: sorted(map(str, keys)) for kind, keys in report.items() if keys}
    if wrong:
        raise BadInput(f"{path} does not hold a whole {called} model; {_listed(wrong)}")
    return network.eval().requires_grad_(False)


@contextmanager
def configuring(source: object, called: str) -> Iterator[None]:
    """Context in which transformers parses the ``config.json`` of ``source`` or builds a network of
    it on the meta device; ``called`` is the family's name.

    Raises:
        BadInput: a setting is of the wrong type or impossible.
    """
    with reading(f"the config.json of {source} describes no {called} model"):
        yield


@contextmanager
def reading(wrong: str) -> Iterator[None]:
    """Context in which a library reads files of a model. A value of no sense in them raises nearly
    any error in it: KeyError, RuntimeError, RecursionError.

    Args:
        wrong: the line that says what is wrong, if anything is.

    Raises:
        BadInput: the library raised an error.
    """
    try:
        yield
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # see above: transformers lets through nearly any
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:SHOWN]
        raise BadInput(f"{wrong} ({reason}); give back the model's file") from error


def needs_tokenizer(path: Path, *files: str) -> None:
    """Check that one of ``files`` exists: without it, transformers would use a tiny vocabulary.

    Raises:
        BadInput: none of them exists.
    """
    if not any((path / name).is_file() for name in files):
        raise BadInput(f"{path} has no tokenizer; it needs {' or '.join(files)}")


def check_tokens(
    path: Path,
    tokenizer: Any,
    embeddings: torch.nn.Module,
    special: Mapping[str, int | None] = MappingProxyType({}),
    *,
    replaced: Collection[int | None] = (),
) -> None:
    """Check that a model has a row for each token.

    Args:
        path: the model's folder, for errors.
        tokenizer: the model's.
        embeddings: what a token's number is looked up in.
        special: name of a token that the model puts in by itself -> its number.
        replaced: numbers of tokens that are never looked up, as that of an image.

    Raises:
        BadInput: a token has no row, or a special token has no number.
    """
    rows: int = embeddings.weight.shape[0]  # type: ignore[assignment,index]
    for name, number in special.items():
        if number is None or not 0 <= number < rows:
            raise BadInput(
                f"{path}: {name}_token_id of text_config in config.json must be from 0 to "
                f"{rows - 1}, not {number}"
            )
    if len(tokenizer) <= rows:  # mostly
        return
    lacking = [
        word
        for word, number in tokenizer.get_vocab().items()
        if number >= rows and number not in replaced
    ]
    if lacking:
        raise BadInput(
            f"the tokenizer of {path} has {len(tokenizer)} tokens, but the model has embeddings "
            f"for {rows}: {len(lacking)} have none, as {lacking[0]!r}; give the tokenizer that "
            "belongs to the weights, or call resize_token_embeddings and train them"
        )


def digest(path: Path, image_size: int | None, off_default: str = "") -> str:
    """sha256 of the configuration, the weights, an image size other than the folder's, and
    ``off_default``, a text of what else is not as it is by default.

    Files are hashed in pieces, since they may be large.
    """
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    own = image_size in (None, config.get("vision_config", {}).get("image_size"))
    hashed = hashlib.sha256(b"" if own else f"{image_size} px".encode())
    hashed.update(off_default.encode())
    for file in sorted((path / "config.json", *path.glob("*.safetensors"))):
        with file.open("rb") as opened:
            hashed.update(hashlib.file_digest(opened, "sha256").digest())
    return hashed.hexdigest()


def _is_news(record: logging.LogRecord) -> bool:
    """Whether to keep a log record of transformers.

    It would print a table of wrong weights, which ``read`` refuses in a line of its own.
    """
    said = record.getMessage()
    return "LOAD REPORT" not in said and "checkpoint seem corrupted" not in said


def _listed(wrong: Mapping[str, Sequence[str]], most: int = 5) -> str:
    """Wrong weights as text: ``2 missing keys: a, b; 40 unexpected keys: c, d, e, f, g, ...``"""
    return "; ".join(
        f"{len(keys)} {kind.replace('_', ' ')}: "
        + ", ".join([*keys[:most], *["..."] * (len(keys) > most)])
        for kind, keys in sorted(wrong.items())
    )
