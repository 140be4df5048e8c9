"""Whatever a user gives is taken as it is meant, or refused in one line.

Examples are made by hypothesis; a failing one is shown in its shortest form. ``make test`` tries a
few, the same each time. ``HYPOTHESIS_PROFILE=long`` tries many others.
"""

from __future__ import annotations

import ast
import json
import math
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from search_spaces.declare import Arm, Choice, LogUniform, Space, Uniform, method, training
from study.analysis import results_file
from study.config import goals, spaces, spending_limit
from study.config.begun_study import BegunStudy, arms_plain, parse_begun, space_as_begun
from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.config.space_changes import narrowing
from study.config.study_json import free_name
from study.search.journal import StudyJournal
from study.storage import journal_reader
from study.storage.paths import check_study_name, safe_join
from study.storage.study_folder import STUDY_NAME, StudyFolder
from study.trials.record import Outcome, Rung, TrialEnd
from study.trials.spec import Kind, TrialSpec
from tests.trainables.data.pictures import picture
from trainables import stored_json
from trainables.data import jsonl
from trainables.data.common.wording import PLACE
from trainables.errors import BadInput, is_whole, printable
from trainables.export import tuned_json
from trainables.options import Parser, parse
from trainables.secrecy import command_line, shown, without_secrets

common: dict[str, Any] = {
    "deadline": None,
    "database": None,
    # A file is written over by each example, and nothing else of a folder is used.
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile("quick", max_examples=20, derandomize=True, **common)
settings.register_profile("long", max_examples=5000, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

texts = st.text(max_size=30) | st.sampled_from(
    ["", " ", "\x1b[31m", "../x", "a\nb", "nan", "1e999", "9" * 400, "-1", "'", "[/red]", "=1+1"]
)
"""Any texts."""
said = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), min_size=1).filter(str.strip)
"""Texts that a question or an answer may be."""
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63])
values: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
"""Any values that JSON has."""


@contextmanager
def refusing() -> Iterator[None]:
    """Context in which something may be refused, in one line."""
    try:
        yield
    except BadInput as error:
        assert str(error).isprintable() and str(error).strip(), repr(str(error))


# Manifests.

keys = st.sampled_from([field.name for field in fields(jsonl.Row)]) | texts
rows = st.fixed_dictionaries(
    {"image": st.sampled_from(["0.png", "1.png", "2.png", "./0.png"]), "question": said},
    optional={
        "answer": said | numbers | st.booleans(),
        "options": st.lists(said, max_size=30) | values,
        "answer_type": st.sampled_from(["open", "closed", "report"]) | values,
        "question_id": said | st.none(),
        "question_type": said | st.none(),
        "split": st.sampled_from(["train", "validation", "test"]) | values,
    },
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for number in range(3):
        picture(folder / f"{number}.png", number)
    return folder


@given(st.lists(rows | st.dictionaries(keys, values, max_size=6) | values, max_size=5))
def test_a_manifest_is_read_or_refused(root: Path, lines: list[Any]) -> None:
    (root / jsonl.MANIFEST).write_text("\n".join(map(json.dumps, lines)))
    with refusing():
        found = jsonl.load(root)
        assert sum(map(len, found.splits().values())) == len(lines)


@given(st.lists(st.tuples(said, said), min_size=3, max_size=3))
def test_a_manifest_is_read_as_it_was_written(root: Path, asked: list[tuple[str, str]]) -> None:
    splits = ("train", "validation", "test")
    lines = [
        {"image": f"{i}.png", "question": question, "answer": answer, "split": splits[i]}
        for i, (question, answer) in enumerate(asked)
    ]
    content = "\n".join(json.dumps(line, ensure_ascii=i % 2 == 0) for i, line in enumerate(lines))
    (root / jsonl.MANIFEST).write_text(content, encoding="utf-8")
    for split, (example,) in jsonl.load(root).splits().items():
        assert (example.question, example.answer) == asked[splits.index(split)]


# Spaces and what narrows them.

PLAIN = spaces.load("peft_methods")
named = st.sampled_from(
    [
        *(
            "lr",
            "warmup",
            "weight_decay",
            "prompt",
            "system",
            "batch_size",
            "optimizer",
            "schedule",
        ),
        *("lora.rank", "lora.targets", "lora.layers", "lora.lr_scale", "lora.rank_stabilized"),
        *("vision.lora.rank", "lora/lr", "lora/lora.rank", "nobody/lr", "adapter.bottleneck"),
    ]
)
listed = st.lists(numbers.map(str) | texts | st.sampled_from(["all", "query+value"]), max_size=3)
ranges = st.builds("{}..{}".format, numbers, numbers)
changes = st.builds("{}={}".format, named | texts, listed.map(",".join) | ranges | texts) | texts


@given(st.lists(changes, max_size=3))
def test_set_changes_a_space_or_is_refused(given_changes: list[str]) -> None:
    with refusing():
        space = narrowing.narrow(PLAIN, None, given_changes)
        for arm in space.arms.values():
            spaces.check(arm)
            assert arms_plain(space)


@given(st.floats(1e-9, 1e3), st.floats(1e-9, 1e3))
def test_a_range_is_the_one_that_was_written(low: float, high: float) -> None:
    assume(low < high)
    space = narrowing.narrow(PLAIN, "lora", [f"lr={low}..{high}"])
    assert space.arms["lora"].lr == LogUniform(low, high)


@given(st.lists(st.integers(1, 64), min_size=2, max_size=6, unique=True))
def test_a_choice_is_the_one_that_was_written(ranks: list[int]) -> None:
    space = narrowing.narrow(PLAIN, "lora", [f"lora.rank={','.join(map(str, ranks))}"])
    assert space.arms["lora"].slots["everywhere"].settings["rank"] == Choice(*ranks)


anything = numbers | texts | st.none() | st.booleans() | st.tuples(texts, numbers) | values
of_space = anything | st.builds(
    lambda kind, args: (kind, args),
    st.sampled_from([Choice, Uniform, LogUniform]),
    st.lists(anything, max_size=3),
)


def made(value: Any) -> Any:
    """A value, or the range that it describes."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], type):
        return value[0](*value[1])
    return value


@given(
    texts | st.just("a"),
    st.dictionaries(st.sampled_from(["rank", "targets", "layers", "rnk"]), of_space, max_size=2),
    of_space | st.just(1e-3),
    st.dictionaries(st.sampled_from([*spaces.TRAINING, "x"]), of_space, max_size=2),
)
def test_a_space_is_declared_or_refused(
    name: str, of_method: dict[str, Any], lr: Any, trained: dict[str, Any]
) -> None:
    try:
        settled = {key: made(value) for key, value in of_method.items()}
        learnt = training(**{key: made(value) for key, value in trained.items()})
        arm = Arm(everywhere=method("lora", **settled), lr=made(lr), training=learnt)
        space = Space(question="?", arms={name: arm})
        spaces.check(arm)
    except (TypeError, ValueError):  # a space's file names the line, whatever its error is
        return
    assert name.isprintable() and StudyFolder(storage="s", name="n").export(name).parent.parts
    # What is noted of a space is the space.
    begun = BegunStudy(
        settings=Settings(space="x"), arms=arms_plain(space), base={}, command="", begun=""
    )
    again = space_as_begun(begun, space)
    assert again is not None and arms_plain(again) == arms_plain(space)


# Names.


@given(texts | st.from_regex(STUDY_NAME, fullmatch=True))
def test_a_study_has_a_name_in_its_storage_or_none(tmp_path: Path, name: str) -> None:
    with refusing():
        check_study_name(tmp_path, name)
        assert StudyFolder(storage=tmp_path, name=name).path.resolve().parent == tmp_path.resolve()


@given(texts)
def test_a_file_lies_in_its_folder_or_nowhere(tmp_path: Path, name: str) -> None:
    with refusing():
        assert safe_join(tmp_path, name).resolve().parent == tmp_path.resolve()


@given(texts, said)
def test_a_new_study_has_a_name(tmp_path: Path, space: str, data: str) -> None:
    check_study_name(tmp_path, free_name(tmp_path, Settings(space=space, data="jsonl")))


@given(texts)
def test_a_message_is_one_line(text: str) -> None:
    assert printable(text).isprintable() and printable(printable(text)) == printable(text)
    assert str(BadInput(text)).isprintable()


# Options.

OPTIONS = {
    "trials": numbers,
    "max_examples": numbers,
    "epochs": numbers,
    "allowance": texts | st.builds("{}{}".format, numbers, st.sampled_from(["h", "trials", "d"])),
    "allocate": texts,
    "tuned_to": numbers,
    "search": texts,
    "stop": texts,
    "seed": numbers,
    "seeds": numbers,
    "objective": texts,
    "under": texts | st.builds("memory<{}{}".format, numbers, st.sampled_from(["GiB", "", "x"])),
    "margin": numbers,
    "prompt": texts | texts.map(lambda text: text + PLACE),
    "system": texts,
    "choose": texts,
    "precision": texts,
    "base_bits": numbers,
    "label_smoothing": numbers,
    "questions_per_image": numbers,
    "beams": numbers,
    "image_size": numbers,
    "arm": texts,
    "split": texts,
    "deepspeed": texts.filter(lambda text: "/" not in text and text not in (".", "..")),
}
"""Field of ``Settings`` -> values that a user may give."""


@given(st.fixed_dictionaries({}, optional=OPTIONS))
def test_options_are_read_or_refused(asked: dict[str, Any]) -> None:
    arguments = ["--space=smoke"]
    for name, value in asked.items():
        option = "budget" if name == "allowance" else name.replace("_", "-")
        arguments.append(f"--{option}={value}")
    with refusing():
        found = parse(Parser(prog="x"), arguments, Settings)
        for name, value in asked.items():
            assert str(getattr(found, name)) == str(value) or getattr(found, name) == value
        definition = StudyDefinition.parse(found)
        assert definition.budget.trials >= 0


@given(texts | st.builds("{}{}".format, st.floats(0), st.sampled_from(["h", "min", "trials"])))
def test_a_budget_is_a_finite_number(text: str) -> None:
    with refusing():
        limit = spending_limit.parse(text)
        assert all(value is None or 0 < value < math.inf for value in asdict(limit).values())


@given(st.builds("{}<{}{}".format, st.sampled_from([*goals.LIMITED_COSTS, "x"]), numbers, texts))
def test_a_limit_is_a_finite_number(text: str) -> None:
    with refusing():
        assert all(0 < limit.below < math.inf for limit in goals.parse_limits(text))


# Files of studies and models.


def _read_json(read: Callable[[bytes], object]) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        with refusing():
            read(json.dumps(value).encode())

    return check


@given(values | st.fixed_dictionaries({"settings": values, "arms": values, "base": values}))
def test_a_study_json_is_read_or_refused(value: Any) -> None:
    _read_json(lambda content: parse_begun(content, "study.json"))(value)


@given(st.lists(values | st.fixed_dictionaries({"op_code": st.integers(0, 9)}), max_size=5))
def test_a_journal_is_read_or_refused(tmp_path: Path, operations: list[Any]) -> None:
    content = "".join(json.dumps(operation) + "\n" for operation in operations).encode()
    with refusing():
        journal_reader.read(content, "optuna.journal")
    (tmp_path / "optuna.journal").write_bytes(content)
    with refusing():
        StudyJournal(tmp_path)


@given(values)
def test_a_tuned_json_is_read_or_refused(tmp_path: Path, value: Any) -> None:
    (tmp_path / tuned_json.FILE).write_text(json.dumps(value))
    with refusing():
        tuned_json.read(tmp_path)


@given(values)
def test_results_are_read_or_refused(tmp_path: Path, value: Any) -> None:
    folder = StudyFolder(storage=tmp_path, name="x")
    folder.path.mkdir(exist_ok=True)
    for file in (folder.settings, folder.results):
        file.write_text(json.dumps(value))
    with refusing():
        results_file.read(folder)


def _plain(text: str) -> bool:
    return is_whole(text) and bool(text.strip())


of_settings = st.fixed_dictionaries(
    {"space": said},
    optional={
        "trials": st.integers(),
        "data_root": said | st.none(),
        "epochs": st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        "set": st.lists(said) | st.none(),
        "allow_leak": st.booleans(),
        "prompt": said,
    },
)


@given(of_settings, st.dictionaries(said, said), st.lists(said) | st.none(), said)
def test_a_study_json_is_read_as_it_was_written(
    of_user: dict[str, Any], base: dict[str, str], run: list[str] | None, command: str
) -> None:
    begun = BegunStudy(
        settings=Settings(**of_user), arms={}, run=run, base=base, command=command, begun="now"
    )
    assert parse_begun(json.dumps(asdict(begun)).encode(), "x") == begun


@given(
    said,
    st.integers(0, 2**31),
    st.sampled_from(["fp32", "bf16"]),
    st.integers(1, 500),
    said.map(lambda text: text + PLACE).filter(lambda text: text.count(PLACE) == 1),
)
def test_a_tuned_json_is_read_as_it_was_written(
    tmp_path: Path, model: str, seed: int, precision: str, tokens: int, prompt: str
) -> None:
    with refusing():
        described = tuned_json.Description(
            model=model,
            digest="0",
            recipe={"vision": {"method": "lora", "rank": 4}},
            seed=seed,
            precision=precision,
            answer_tokens=tokens,
            prompt=prompt,
        )
        assert described.asking
        tuned_json.write(tmp_path, described)
        assert tuned_json.read(tmp_path) == described


specs = st.builds(
    TrialSpec,
    kind=st.just(Kind.CONFIRM),
    arm=said,
    parameters=st.dictionaries(said, numbers.filter(lambda n: abs(n) < 1e9) | said),
    recipe=st.dictionaries(said, st.dictionaries(said, said | st.lists(st.integers(0, 9)))),
    lr=st.floats(1e-9, 1),
    seed=st.integers(0, 2**31),
    max_examples=st.integers(1, 10**6),
    batch_size=st.integers(1, 512),
    stops=st.lists(st.integers(1, 10**6), max_size=4).map(lambda s: tuple(sorted(s))),
    base=said,
)


@given(specs)
def test_a_trial_keeps_its_id(spec: TrialSpec) -> None:
    again = TrialSpec.from_plain(json.loads(json.dumps(spec.plain())))
    assert again.id == spec.id and again == spec


@settings(max_examples=5)
@given(st.lists(st.tuples(specs, st.floats(0, 100), said), max_size=3, unique_by=lambda t: t[0].id))
def test_a_journal_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, trials: list[tuple[TrialSpec, float, str]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = StudyJournal(folder)
    for spec, loss, error in trials:
        journal.started(spec, journal.study_of(Kind.CONFIRM).ask())
        journal.rung(
            spec.id,
            Rung(examples_seen=8, validation_loss=loss, train_loss=1, seconds=1, reported_at=0),
        )
        end = TrialEnd(outcome=Outcome.COMPLETE, costs={"seconds": 1.0}, scores={}, error=error)
        journal.ended(spec.id, end)
    content = (folder / "optuna.journal").read_bytes()
    read = {record.spec.id: record for record in journal_reader.read(content, "x").records}
    assert read == journal.records == StudyJournal(folder).records


# Secrets.

secret = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=20).map(
    lambda text: f"pw{text}"
)


@given(said, secret, st.sampled_from(["http", "https", "postgresql", "s3", "mysql+pymysql"]))
def test_a_password_is_cut_from_any_text(around: str, password: str, scheme: str) -> None:
    assume(password not in around)
    text = f"{around} {scheme}://user:{password}@host/x {around}"
    cut = without_secrets(text)
    assert password not in cut and without_secrets(cut) == cut
    for line in (shown(text), command_line("study.launch", [f"--tracking-uri={text}"])):
        assert password not in line
    assert password not in str(BadInput(text))


@given(st.lists(st.text(st.characters(exclude_characters=":=", codec="utf-8")), max_size=4))
def test_a_kept_command_can_be_given_again(words: list[str]) -> None:
    assume(not any(word.lower().startswith(("basic ", "bearer ")) for word in words))
    kept = command_line("study.launch", words)
    assert shlex.split(kept) == ["python", "-m", "study.launch", *words]


@given(values)
def test_a_value_of_python_is_no_program(value: Any) -> None:
    """Ranges in ``study.json`` are read by ``ast``, and nothing else of Python is."""
    begun = BegunStudy(
        settings=Settings(space="x"),
        arms={"a": {"lr": value, "everywhere": ["lora", {"rank": value}]}},
        base={},
        command="",
        begun="",
    )
    found = space_as_begun(begun, PLAIN)
    if found is not None:
        assert ast.literal_eval(json.dumps(str(found.arms["a"].lr)))


def test_a_stored_value_is_named_where_it_is_wrong() -> None:
    with pytest.raises(BadInput, match=r"x: \[0\]\.a should be a whole number"):
        stored_json.parse(list[dict[str, int]], [{"a": "b"}], "x")  # type: ignore[arg-type]  # no class
