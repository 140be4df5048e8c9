"""Finds methods, datasets, model families, measures, search spaces, searchers and rules of early
stopping as files, by their names; imports a user's own file.

Adding one is adding a file to its folder: there is no list to edit. A file is a member when it
defines, at top level, the one name that its folder asks for (``apply`` for a method, ``load`` for a
dataset or a model family, ``MEASURE`` for a measure, ``SPACE`` for a search space, ``point`` for a
searcher, ``Stopper`` for a rule of early stopping).
CONTRIBUTING.md says what else each kind must have, and ``tests/test_plug_ins.py`` checks it.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from trainables.command import was_signalled
from trainables.errors import BadInput, unknown


@dataclass(frozen=True)
class Registry:
    """Files of one folder that define the name that the folder asks for."""

    kind: str
    """Noun for a member in error messages."""
    package: str
    """Name of the folder as a Python package."""
    defines: str
    """Name that a file must define at top level to be a member."""

    @cache  # noqa: B019  # there are few registries, and each lives as long as the process
    def names(self) -> tuple[str, ...]:
        """Names of the members, sorted; found in milliseconds, as files are parsed, not
        imported."""
        return tuple(
            sorted(
                file.stem
                for file in self.folder.glob("[!_]*.py")
                if self.defines in _top_level(_parsed(file))
            )
        )

    def listed(self) -> tuple[str, ...]:
        """Names of all files that may be members, sorted, for the help of an option: nothing is
        read, so that a file with an error does not keep a command from starting."""
        return tuple(sorted(file.stem for file in self.folder.glob("[!_]*.py")))

    def file(self, name: str) -> Path:
        """File of the member called ``name``.

        Raises:
            BadInput: no member has that name; the message lists the names that exist.
        """
        if name not in self.names():
            raise unknown(self.kind, name, self.names())
        return self.folder / f"{name}.py"

    @cache  # noqa: B019  # as above
    def text(self, name: str, constant: str) -> str:
        """Text that the file of the member called ``name`` assigns to ``constant`` at top level,
        empty if it has none. The file is parsed, not imported, which may be impossible.

        Raises:
            BadInput: no member has that name; the message lists the names that exist.
        """
        for node in _parsed(self.file(name)).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=named)], value=ast.Constant(value=str(value))):
                    if named == constant:
                        return value
        return ""

    def find(self, name: str) -> ModuleType:
        """Import the member called ``name``.

        Raises:
            BadInput: no member has that name; the message lists the names that exist.
        """
        return importlib.import_module(f"{self.package}.{self.file(name).stem}")

    @property
    def folder(self) -> Path:
        """Folder of the members."""
        spec = importlib.util.find_spec(self.package)
        assert spec is not None and spec.submodule_search_locations
        return Path(next(iter(spec.submodule_search_locations)))


METHODS = Registry("method", "trainables.methods", "apply")
DATASETS = Registry("dataset", "trainables.data", "load")
FAMILIES = Registry("model family", "trainables.models", "load")
MEASURES = Registry("measure", "trainables.measures", "MEASURE")


@cache
def presets() -> dict[str, Path]:
    """File of each preset by its name, sorted. A preset is the ``config.json`` of a published
    model: ``study.plan`` counts its structure without its weights."""
    return {file.stem: file for file in sorted((FAMILIES.folder / "presets").glob("*.json"))}


def of_user(file: Path, option: str) -> ModuleType:
    """Import a user's own file, a space or a measure.

    Args:
        file: the file.
        option: what a user may give to the option that takes it, for the error of a file that is
            not there.

    Raises:
        BadInput: there is no such file, or its code raises, whatever it is: the file is the user's
            program, and the error names the line of it.
    """
    if not file.is_file():
        raise BadInput(f"there is no file {file}; {option}")
    # A name that no module has, so that the file is in the way of none.
    spec = importlib.util.spec_from_file_location(f"file_of_user_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # the user's own code: whatever it raises is theirs to see
        if isinstance(error, KeyboardInterrupt) and was_signalled():
            raise  # somebody wants the command to end, and the file has not raised it
        inside = [frame.lineno for frame in inspect.trace() if frame.filename == str(file)]
        line = getattr(error, "lineno", None) or max(inside, default=1)
        said = " ".join(str(getattr(error, "msg", error)).split())
        raise BadInput(
            f"{file}, line {line}: {type(error).__name__}{said and f': {said}'}"
        ) from None
    return module


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except SyntaxError as error:
        raise BadInput(f"{file}, line {error.lineno}: {error.msg}; mend or remove it") from error


def _top_level(tree: ast.Module) -> set[str]:
    """Names that a module defines at its top level."""
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
    return defined
