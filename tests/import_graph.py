"""Prints how the modules of ``study/`` and ``trainables/`` import each other.

    python -m tests.import_graph

Imports inside functions and under ``TYPE_CHECKING`` count. A row of the table is one package; its
modules are counted with a folder as one, and a floor is a step of the longest chain of imports.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "study", "trainables")
PLUG_INS = {
    "search_spaces",
    "study/search/searchers",
    "study/search/stoppers",
    "trainables/data",
    "trainables/measures",
    "trainables/methods",
    "trainables/models",
}
"""Folders that grow by a file for each method, dataset, ..."""

Graph = Mapping[str, set[str]]
"""A module -> the modules that it imports; each by its path from the root."""


def imports(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that ``source`` imports, anywhere and in any way; a name
    imported from a module is told as ``module.name``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = path.split("/")[:-level] if level else []
                base = ".".join([*above, *([module] if module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}".lstrip(".")) for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """The modules of our packages below ``root`` and what of ours each imports."""
    sources = {
        path.relative_to(root).as_posix(): path.read_text("utf-8")
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    modules = {_dotted(path): path for path in sources}
    found: dict[str, set[str]] = {path: set() for path in sources}
    for path, source in sources.items():
        for _, imported in imports(path, source):
            parts = imported.split(".")
            names = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
            module = next((modules[name] for name in names if name in modules), path)
            found[path] |= {module} - {path}
    return found


def by_folder(modules: Graph, package: str) -> dict[str, set[str]]:
    """The graph inside one package, with each folder as one node and its own files apart."""

    def folder(path: str) -> str:
        inside = path.removeprefix(f"{package}/")
        return inside.split("/")[0] if "/" in inside else inside

    inside = {p: t for p, t in modules.items() if p.startswith(f"{package}/")}
    inside = {p: t for p, t in inside.items() if not p.endswith("__init__.py")}
    found: dict[str, set[str]] = {folder(path): set() for path in inside}
    for path, targets in inside.items():
        for target in targets & inside.keys():
            if folder(target) != folder(path):
                found[folder(path)].add(folder(target))
    return found


def circles(modules: Graph) -> list[list[str]]:
    """Chains of imports that end where they begin. Without the first import of each, there is no
    other."""
    left = {path: set(targets) for path, targets in modules.items()}
    found = []
    while True:
        try:
            TopologicalSorter(left).prepare()
            return found
        except CycleError as error:
            circle = error.args[1][::-1]
            found.append(circle)
            left[circle[0]].discard(circle[1])


def floors(modules: Graph) -> dict[str, int]:
    """Module -> the longest chain of imports below it, counted in modules, itself included; imports
    that close a circle are left out."""
    left = {path: set(targets) for path, targets in modules.items()}
    for circle in circles(modules):
        left[circle[0]].discard(circle[1])
    found: dict[str, int] = {}
    for path in TopologicalSorter(left).static_order():
        found[path] = 1 + max((found[target] for target in left.get(path, ())), default=0)
    return found


def folder_sizes(modules: Graph) -> dict[str, int]:
    """Folder -> the modules that lie in it, ``__init__.py`` aside."""
    found: dict[str, int] = {}
    for path in modules:
        folder, _, name = path.rpartition("/")
        if name != "__init__.py":
            found[folder] = found.get(folder, 0) + 1
    return found


def _dotted(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def main(root: Path = ROOT) -> None:
    """Print the table, the largest folders and the circles."""
    modules = graph(root)
    print(f"{'package':12} {'modules':>8} {'floors':>7} {'imports':>8} {'circles':>8}")
    for package in ("study", "trainables"):
        folders = by_folder(modules, package)
        own = {p: t & modules.keys() for p, t in modules.items() if p.startswith(f"{package}/")}
        edges, top = sum(map(len, folders.values())), max(floors(folders).values())
        print(f"{package:12} {len(folders):8} {top:7} {edges:8} {len(circles(own)):8}")
    sizes = folder_sizes(modules)
    for folder in sorted(sizes, key=lambda name: -sizes[name])[:8]:
        print(f"{sizes[folder]:4} modules in {folder}{' (plug-ins)' * (folder in PLUG_INS)}")
    for package in ("study", "trainables"):
        for circle in circles(by_folder(modules, package)):
            print("circle of folders:", " -> ".join(circle))
    for circle in circles(modules):
        print("circle:", " -> ".join(circle))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
