"""A folder with all that is wrong: search spaces, data, models, configurations, studies."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.stored_studies.test_stored_studies import unpack

ARM = 'Arm(everywhere=method("lora"), lr=LogUniform(1e-4, 1e-2))'
SPACE = 'SPACE = Space(question="?", arms={%s}%s)\n'
LORA = 'SPACE = Space(question="?", arms={"a": Arm(everywhere=method("lora"%s), %s)})\n'
SPACES = {
    "exit": "exit()\n",
    "exit3": "import sys; sys.exit(3)\n",
    "kbd": "raise KeyboardInterrupt\n",
    "several": "raise ValueError('one\\ntwo\\nthree')\n",
    "syntax": "SPACE = Space(\n",
    "none": "",
    "number": "SPACE = 3\n",
    "import": "import nothing_like_this\n",
    "div": "x = 1 / 0\n",
    "recursion": "def f(): return f()\nf()\n",
    # What a space is made of.
    "armlist": 'SPACE = Space(question="?", arms=[])\n',
    "armnumber": SPACE % ('"a": 3', ""),
    "armname": SPACE % (f"3: {ARM}", ""),
    "armempty": SPACE % (f'"": {ARM}', ""),
    "noarms": SPACE % ("", ""),
    "untuned": SPACE % (f'"untuned": {ARM}', ""),
    "majority": SPACE % (f'"majority": {ARM}', ""),
    "escape": SPACE % (f'"a\\x1b[31m": {ARM}', ""),
    "markup": SPACE % (f'"[/red]": {ARM}', ""),
    "slash": SPACE % (f'"../../x": {ARM}', ""),
    "longarm": SPACE % (f'"a"*300: {ARM}', ""),
    "against": SPACE % (f'"lora": {ARM}', ', against="lra"'),
    "against2": SPACE % (f'"a": {ARM}, "b": {ARM}, "lora": {ARM}', ', against="lora"'),
    "question": f'SPACE = Space(question=3, arms={{"a": {ARM}}})\n',
    "noquestion": f'SPACE = Space(arms={{"a": {ARM}}})\n',
    **{
        f"budget{name}": SPACE % (f'"a": {ARM}', f", budget={budget}")
        for name, budget in {
            "nan": 'Budget(max_examples=float("nan"))',
            "float": "Budget(trials=2.5)",
            "neg": "Budget(trials=-2)",
            "text": 'Budget(trials="8")',
            "bool": "Budget(trials=True)",
            "batch": "Budget(batch_size=0)",
            "rungs": "Budget(rungs=-1)",
            "huge": "Budget(rungs=10**9)",
            "dict": '{"trials": 3}',
        }.items()
    },
    # What an arm is made of.
    "lrinf": LORA % ("", 'lr=LogUniform(1e-4, float("inf"))'),
    "lrnan": LORA % ("", 'lr=float("nan")'),
    "lrzero": LORA % ("", "lr=0"),
    "lrtext": LORA % ("", 'lr="0.1"'),
    "lrturned": LORA % ("", "lr=LogUniform(1e-2, 1e-4)"),
    "nolr": LORA % ("", ""),
    "choiceempty": LORA % (", rank=Choice()", "lr=1e-2"),
    "choicelist": LORA % (", rank=Choice([2, 4])", "lr=1e-2"),
    "rank0": LORA % (", rank=0", "lr=1e-2"),
    "rankfloat": LORA % (", rank=2.5", "lr=1e-2"),
    "ranktext": LORA % (', rank="8"', "lr=1e-2"),
    "targets": LORA % (', targets="qery"', "lr=1e-2"),
    "layers": LORA % (', layers="last:99"', "lr=1e-2"),
    "layersx": LORA % (', layers="some"', "lr=1e-2"),
    "training": LORA % ("", "lr=1e-2, training=training(weight_decy=0.1)"),
    "training2": LORA % ("", 'lr=1e-2, training=training(optimizer="adam")'),
    "training3": LORA % ("", "lr=1e-2, training=training(warmup=2.0)"),
    "training4": LORA % ("", "lr=1e-2, training=3"),
    "slot": SPACE % ('"a": Arm(visoin=method("lora"), lr=1e-2)', ""),
    "slotsome": SPACE
    % (
        '"a": Arm(vision=method("lora"), fusion=method("lora"), connector=method("lora"), lr=1e-2)',
        "",
    ),
    "noslot": SPACE % ('"a": Arm(lr=1e-2)', ""),
    "frozen": SPACE % ('"a": Arm(everywhere=method("frozen"), lr=1e-2)', ""),
    "methodtext": SPACE % ('"a": Arm(everywhere="lora", lr=1e-2)', ""),
    "method3": SPACE % ('"a": Arm(everywhere=method(3), lr=1e-2)', ""),
}
"""Name of a space file -> its code after ``from search_spaces.declare import *``."""

GOOD = [
    {"image": f"images/{i}.png", "question": "is there a mass ?", "answer": "no", "split": split}
    for i, split in enumerate(("train", "validation", "test"))
]
FIRST = '{"image": "images/0.png", "question": "q", "answer": %s, "split": "train"}'
ROWS: dict[str, list[Any]] = {
    "ok": [],
    "notjson": ["{oops"],
    "list": ["[1, 2]"],
    "null": ["null"],
    "text": ['"x"'],
    "deep": ["[" * 5000 + "]" * 5000],
    "bigint": [FIRST % ("9" * 5000)],
    "twice": [FIRST.replace("}", ', "answer": "yes"}') % '"no"'],
    "answernan": [FIRST % "NaN"],
    "answernull": [GOOD[0] | {"answer": None}],
    "answerhalf": [FIRST % '"\\ud83d"'],
    "optionhalf": [FIRST.replace("}", ', "options": ["a", "\\ud83d"]}') % '"a"'],
    "answerempty": [GOOD[0] | {"answer": ""}],
    "answerlist": [GOOD[0] | {"answer": ["no"]}],
    "questionempty": [GOOD[0] | {"question": "  "}],
    "splitodd": [GOOD[0] | {"split": "tain"}],
    "splitnumber": [GOOD[0] | {"split": 1}],
    "imagegone": [GOOD[0] | {"image": "images/9.png"}],
    "imageup": [GOOD[0] | {"image": "../../../etc/passwd"}],
    "imageabs": [GOOD[0] | {"image": "/etc/passwd"}],
    "imagenumber": [GOOD[0] | {"image": 3}],
    "imageempty": [GOOD[0] | {"image": ""}],
    "imagedir": [GOOD[0] | {"image": "images"}],
    "badimage": [GOOD[0] | {"image": "images/bad.png"}],
    "cutimage": [GOOD[0] | {"image": "images/cut.png"}],
    "emptyimage": [GOOD[0] | {"image": "images/e.png"}],
    "unknown": [GOOD[0] | {"anser": "x"}],
    **{
        f"no{key}": [{name: value for name, value in GOOD[0].items() if name != key}]
        for key in ("answer", "image", "question", "split")
    },
}
"""Name of a data folder -> what its manifest has after three good rows."""

MODELS: dict[str, Any] = {
    "notjson": "{",
    "listc": "[]",
    "nullc": "null",
    "number": "3",
    "latin": b"\xff\xfe{",
    "notype": {},
    "unknown": {"model_type": "blipp"},
    "typenumber": {"model_type": 3},
    "mllama": {"model_type": "mllama"},
    "gemma4": {"model_type": "gemma4"},
    "clip": {"model_type": "clip"},
    "bert": {"model_type": "bert"},
    "blip": {"model_type": "blip"},
    "llava": {"model_type": "llava"},
    "blipodd": {"model_type": "blip", "vision_config": {"hidden_size": -3}, "text_config": {}},
}
"""Name of a model folder -> its ``config.json``."""

TUNED = {
    "version": 1,
    "model": "tiny",
    "digest": "0" * 64,
    "recipe": {"decoder": {"method": "layernorm"}},
    "seed": 1,
    "precision": "fp32",
}
"""The ``tuned.json`` of an exported model."""
EXPORTS: dict[str, dict[str, Any]] = {
    "pipe": {},
    "noweights": {},
    "beams": {"beams": 0},
    "prompt": {"prompt": "\ud83d"},
    "precision": {"precision": "fp8"},
    "recipe": {"recipe": {"decoder": {}}},
    "later": {"version": 2},
}
"""Name of an exported model's folder -> what is odd in its ``tuned.json``."""

DEEPSPEED = {
    "notjson": "{",
    "listd": "[]",
    "nulld": "null",
    "unknown": '{"zero_optimisation": {"stage": 1}}',
    "stage": '{"zero_optimization": {"stage": 7}}',
    "batch": '{"train_batch_size": 3}',
    "opt": '{"optimizer": {"type": "SGD"}}',
    "zerotext": '{"zero_optimization": "x"}',
    "deep": "[" * 20_000 + "]" * 20_000,
}

WHOLE: dict[str, Any] = {
    "gone": None,
    "notjson": "{",
    "listx": "[]",
    "null": "null",
    "empty": "",
    "number": "3",
    "latin": b"\xff\xfe",
    "deep": "[" * 100_000,
    "cut": lambda text: text[: len(text) // 2],
}
"""What may be in place of a study's ``study.json`` or ``results.json``; None: there is none."""
DROPPED = object()
LESS: dict[str, tuple[str | int, ...]] = {
    "lr": ("trials", 0, "lr"),
    "rung": ("trials", 0, "rungs", 0, "examples_seen"),
    "budget": ("efficiency", "budget", "arms", "layernorm", 0, "seconds"),
}
"""Places in ``results.json`` of numbers that are not negative, which figures have on a logarithmic
axis."""


def write(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def png() -> bytes:
    """A picture of 8 by 8 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    pixels = zlib.compress(b"".join(b"\0" + bytes(range(8)) for _ in range(8)))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def build(here: Path) -> None:
    """Fill the folder ``here``."""
    unpack(here)
    _spaces(here / "spaces")
    _data(here / "data")
    for name, config in MODELS.items():
        content = config if isinstance(config, str | bytes) else json.dumps(config)
        write(here / "models" / name / "config.json", content)
    write(here / "models" / "openclip" / "open_clip_config.json", "{}")
    write(here / "models" / "afile", "x")
    (here / "models" / "emptyfolder").mkdir()
    write(here / "models" / "pipe" / "config.json", json.dumps(MODELS["blip"]))
    os.mkfifo(here / "models" / "pipe" / "model.safetensors")
    for name, change in EXPORTS.items():
        write(here / "exports" / name / "tuned.json", json.dumps(TUNED | change))
    os.mkfifo(here / "exports" / "pipe" / "trained.safetensors")
    for name, content in DEEPSPEED.items():
        write(here / "ds" / f"{name}.json", content)
    write(here / "images" / "ok.png", png())
    _studies(here)


def _spaces(folder: Path) -> None:
    head = "from search_spaces.declare import *\n"
    for name, code in SPACES.items():
        write(folder / f"{name}.py", head + code)
    write(folder / "ok.py", head + SPACE % (f'"a": {ARM}', ""))
    write(folder / "null.py", b"SPACE = 3\0")
    write(folder / "empty.py", "")
    write(folder / "text.txt", "x")
    (folder / "dir.py").mkdir()
    (folder / "link.py").symlink_to("nowhere.py")
    (folder / "loop.py").symlink_to("loop.py")


def _data(folder: Path) -> None:
    picture = png()
    for name, more in ROWS.items():
        _manifest(folder / name, [*GOOD, *more])
    _manifest(folder / "empty", [])
    _manifest(folder / "notrain", GOOD[1:])
    _manifest(folder / "notest", GOOD[:2])
    _manifest(folder / "novalidation", [GOOD[0], GOOD[2]])
    write(folder / "badimage" / "images" / "bad.png", "no picture")
    write(folder / "cutimage" / "images" / "cut.png", picture[:40])
    write(folder / "emptyimage" / "images" / "e.png", b"")
    latin = b'{"image": "images/0.png", "question": "\xe4", "answer": "no", "split": "train"}\n'
    write(folder / "latin" / "questions.jsonl", latin)
    write(folder / "binary" / "questions.jsonl", bytes(range(256)))
    write(folder / "zero" / "questions.jsonl", bytes(4))
    write(folder / "nofile" / "readme.txt", "x")
    write(folder / "file", "x")
    (folder / "fifo").mkdir()
    os.mkfifo(folder / "fifo" / "questions.jsonl")


def _manifest(folder: Path, rows: list[Any]) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    write(folder / "questions.jsonl", "\n".join(lines) + "\n")
    for number in range(3):
        write(folder / "images" / f"{number}.png", png())


def _studies(here: Path) -> None:
    """Copies of studies, each with one thing wrong."""
    for name, change in {
        "text": (b'"lane": "', b'"lane": 3, "odd": "'),
        "bytes": (b'"lane"', b'"\xff"'),
    }.items():
        folder = here / "broken" / f"journal-{name}"
        shutil.copytree(here / "studies" / "half", folder)
        journal = folder / "optuna.journal"
        journal.write_bytes(journal.read_bytes().replace(*change))
    for file in ("study.json", "results.json"):
        stem = file.partition(".")[0]
        for name, content in WHOLE.items():
            _broken(here, f"{stem}-{name}", file, content)
        # What a study was when the archive was written, and not all that it has by now.
        keys = json.loads((here / "studies" / "finished" / file).read_text())
        for key in keys:
            _broken(here, f"{stem}-no-{key}", file, _with(key, DROPPED))
            wrong = [3] if stem == "study" else 3
            _broken(here, f"{stem}-odd-{key}", file, _with(key, wrong))
        _broken(here, f"{stem}-later", file, _with("version", 99))
    _broken(here, "protocol-pipe", "results.json", str)
    os.mkfifo(here / "broken" / "protocol-pipe" / "protocol.json")
    _broken(here, "study-unknown", "study.json", _with("colour", "red"))
    for name, places in LESS.items():
        _broken(here, f"results-less-{name}", "results.json", _less(*places))


def _broken(here: Path, name: str, file: str, content: Any) -> None:
    folder = here / "broken" / name
    shutil.copytree(here / "studies" / "finished", folder)
    target = folder / file
    if content is None:
        target.unlink()
    else:
        write(target, content(target.read_text()) if callable(content) else content)


def _with(key: str, value: Any) -> Callable[[str], str]:
    """Function that gives a JSON object's ``key`` another value, or drops it."""

    def changed(text: str) -> str:
        found = json.loads(text)
        if value is DROPPED:
            found.pop(key, None)
        else:
            found[key] = value
        return json.dumps(found)

    return changed


def _less(*places: str | int) -> Callable[[str], str]:
    """Function that makes the number at a place in a JSON document -1."""

    def changed(text: str) -> str:
        found = holder = json.loads(text)
        for place in places[:-1]:
            holder = holder[place]
        assert holder[places[-1]] >= 0
        holder[places[-1]] = -1
        return json.dumps(found)

    return changed
