"""Methods, datasets, model families and search spaces are files, found by their names.

Adding one is adding a file to its folder: there is no list to edit. A file is a member when it
defines, at top level, the one name that its folder asks for (``apply`` for a method, ``load`` for
a dataset or a model family, ``SPACE`` for a search space).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from trainables.errors import unknown

METHODS = ("trainables.methods", "apply")
DATASETS = ("trainables.data", "load")
FAMILIES = ("trainables.models", "load")


@cache
def names(package: str, defines: str) -> tuple[str, ...]:
    """The members of ``package``, sorted. Files are parsed, not imported: it takes milliseconds."""
    return tuple(
        sorted(
            file.stem
            for file in _folder(package).glob("[!_]*.py")
            if defines in _top_level(ast.parse(file.read_text(encoding="utf-8")))
        )
    )


def find(kind: str, package: str, defines: str, name: str) -> ModuleType:
    """Import the member of ``package`` that is called ``name``; ``kind`` is its word in errors.

    Raises:
        BadInput: no member has that name; the message lists those there are.
    """
    if name not in names(package, defines):
        raise unknown(kind, name, names(package, defines))
    return importlib.import_module(f"{package}.{name}")


@cache
def presets() -> dict[str, str]:
    """Well-known models, of which families know the structure -> their family."""
    package, defines = FAMILIES
    found: dict[str, str] = {}
    for family in names(package, defines):
        tree = ast.parse((_folder(package) / f"{family}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id="PRESETS")], value=ast.Dict(keys=keys)):
                    found |= {ast.literal_eval(key): family for key in keys if key}
    return found


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


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
