"""Measure the structure of the package: its rooms, the imports between them, and what stands in more than one place.

    python tools/house.py                a table of the properties, and where each limit is exceeded
    python tools/house.py --base REV     the same, with the values of another revision beside them
    python tools/house.py --check        exit with 1 where a limit is exceeded
    python tools/house.py --json         values, limits and places as JSON

How it counts (why: docs/decisions/0015-rooms.md):

- A *room* is a folder that holds Python modules. An *entry* of a room is a module or a room directly inside it.
- An *import* is an ``import`` statement at module level or inside a function, or a string that names one of the
  package's modules in a module that calls ``import_module`` (an f-string counts for each module that it can name).
  ``from a import b`` is an import of ``a.b`` where that is a module, otherwise of ``a``. Imports under
  ``if TYPE_CHECKING:`` do not happen at run time: they are counted in a row of their own only.
- A *circle* is a largest set of modules (or of one room's entries) in which each one reaches every other by imports.
- *Floors* are the longest chain of imports between the entries of a room; a circle of n entries counts n.
- An import runs *upward* if the imported module stands on a higher floor of ``FLOORS`` than the importing one, or in
  another place on the same floor.
- The goal for lines leaves out JAX and what came after the rebuild into rooms: ``new_capabilities.toml`` beside this
  script lists it (why: docs/decisions/0017-lines.md).
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

# The house, lowest floor first. A name is a room or a module, and the longest name that fits a module is its place.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("_version",),
    ("_core",),
    ("_kernels.cpu", "_kernels.cuda"),
    ("_kernels",),
    ("_numpy", "data"),
    ("_inspection", "torch._base"),
    ("_classifier", "_inspection.explain", "_inspection.diagnose", "torch._losses"),
    ("_inspection.report", "_inspection.page", "torch._linear", "dask"),
    ("torch._tokens", "torch.functional"),
    ("torch._lazy",),
    ("_cli", "torch", "jax"),
    ("__init__",),
)

OPTION = "z_loss"  # stands for all options
LINES = 400  # of one file
LONG_FILES = {"_kernels/cpu/simd.py": "the vector layer: LLVM's instructions, one intrinsic after the other"}
# The public name is the same wherever the rows lie: docs/decisions/0022-dask.md.
SHARED_NAMES = {"SoftmaxClassifier": {"_classifier/estimator.py", "dask/_estimator.py"}}
BUILD_PRODUCTS = ("docs/*.html", "dist/*", "build/*", "*.pyc", "*.so", "*.nbc", "*.nbi", "*.whl", "*.egg-info/*")
BY_NUMBER = {"inputs", "arguments", "given", "options", "needed", "in_dims", "needs_input_grad", "saved_tensors"}
SHOWN = 20  # places of a property; --json lists all
ON_DEVICE = {"on_cuda", "is_cuda", "is_cpu"}

Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Import:
    """One import of a module of the package: who imports what, in which line, and when it happens."""

    importer: str
    imported: str
    line: int
    when: str  # "import" (of the module), "call" (of a function), "string" (import_module), "types" (never)

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported} ({self.when})"


@dataclass(frozen=True)
class Module:
    """One Python file of the package."""

    name: str
    path: str  # below the package's folder
    nodes: Sequence[ast.AST]  # all of its tree, the module itself first
    lines: int


@dataclass(frozen=True)
class Property:
    """What was measured, the limit if there is one, and the places that count."""

    name: str
    value: int | None  # None: not defined for this tree
    limit: int | None = None
    where: Sequence[str] = ()

    @property
    def exceeded(self) -> bool:
        """Whether the value is above the limit, or is missing where there is a limit."""
        return self.limit is not None and (self.value is None or self.value > self.limit)


def read(package: Path) -> dict[str, Module]:
    """Return the modules of a package by their dotted names; a folder's ``__init__`` has the folder's name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        text, relative = path.read_text(encoding="utf-8"), path.relative_to(package)
        name = ".".join((package.name, *relative.with_suffix("").parts)).removesuffix(".__init__")
        modules[name] = Module(name, relative.as_posix(), [*ast.walk(ast.parse(text))], len(text.splitlines()))
    return modules


def names(node: ast.AST) -> set[str]:
    """Return the name of a node that is ``name`` or ``anything.name``, as a set of at most one."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {name}
    return set()


class _Imports(ast.NodeVisitor):
    """Collect the imports of one module."""

    def __init__(self, module: Module, modules: Mapping[str, Module], package: str) -> None:
        self.module, self.modules, self.package = module, modules, package
        self.when = "import"
        self.found: dict[Import, None] = {}  # a set in the order of the lines
        self.selects = any(names(node) == {"import_module"} for node in module.nodes)
        self.visit(module.nodes[0])

    def _add(self, imported: str, node: ast.stmt | ast.expr, when: str | None = None) -> None:
        if imported.split(".", maxsplit=1)[0] == self.package and imported != self.module.name:
            self.found[Import(self.module.name, imported, node.lineno, when or self.when)] = None

    def _within(self, when: str, nodes: Sequence[ast.AST]) -> None:
        before, self.when = self.when, "types" if self.when == "types" else when
        for node in nodes:
            self.visit(node)
        self.when = before

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            self._add(each.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        origin = node.module or ""
        if node.level:
            folder = self.module.name.split(".")[: None if self.module.path.endswith("__init__.py") else -1]
            origin = ".".join([*folder[: len(folder) - node.level + 1], *origin.split(".")]).rstrip(".")
        for each in node.names:
            inner = f"{origin}.{each.name}"
            self._add(inner if inner in self.modules else origin, node)

    def visit_If(self, node: ast.If) -> None:
        self._within("types" if names(node.test) == {"TYPE_CHECKING"} else self.when, [node.test, *node.body])
        self._within(self.when, node.orelse)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._within("call", [*node.decorator_list, *node.body])

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast's own name

    def visit_Constant(self, node: ast.Constant) -> None:
        if self.selects and isinstance(node.value, str) and re.fullmatch(rf"{self.package}(\.\w+)+", node.value):
            self._add(node.value, node, "string")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        texts = [each.value if isinstance(each, ast.Constant) else None for each in node.values]
        pattern = "".join(r"\w+" if text is None else re.escape(str(text)) for text in texts)
        if self.selects and str(texts[0]).startswith(f"{self.package}."):
            for name in [each for each in self.modules if re.fullmatch(pattern, each)] or [ast.unparse(node)[2:-1]]:
                self._add(name, node, "string")


def graph(edges: Iterable[tuple[str, str]]) -> Graph:
    """Return the neighbours of each node."""
    result: dict[str, set[str]] = defaultdict(set)
    for start, end in edges:
        result[start] |= {end} - {start}
        result[end] |= set()
    return dict(result)


def groups(edges: Graph) -> dict[str, frozenset[str]]:
    """Return for each node the set of nodes that it reaches and that reach it, itself included."""
    reached: dict[str, set[str]] = {}
    for start in edges:
        seen, left = {start}, [start]
        while left:
            new = edges[left.pop()] - seen
            seen |= new
            left.extend(new)
        reached[start] = seen
    return {node: frozenset(other for other in reached[node] if node in reached[other]) for node in edges}


def circles(edges: Graph) -> list[str]:
    """Return each circle as its nodes in alphabetical order."""
    return sorted(" ↔ ".join(sorted(group)) for group in set(groups(edges).values()) if len(group) > 1)


def chain(edges: Graph) -> tuple[str, ...]:
    """Return a longest chain of imports from the top down; of a circle, all nodes."""
    group_of = groups(edges)

    @cache
    def down(group: frozenset[str]) -> tuple[str, ...]:
        lower = {group_of[end] for start in group for end in edges[start] if end not in group}
        return (*sorted(group), *max(map(down, lower), key=lambda each: (len(each), each), default=()))

    return max(map(down, group_of.values()), key=lambda each: (len(each), each), default=())


def inside(imports: Iterable[tuple[str, str]], room: str) -> Graph:
    """Return which entries of a room import which; the room's own module is its entry ``__init__``."""

    def entry(module: str) -> str | None:
        rest = f"{module}.".removeprefix(f"{room}.")
        return None if rest == f"{module}." else rest.split(".")[0] or "__init__"

    return graph((a, b) for a, b in ((entry(start), entry(end)) for start, end in imports) if a and b)


def upward(imports: Sequence[Import], modules: Iterable[str]) -> Property:
    """Return the imports that run upward; where a module has no place in the order, there is no such number."""
    height = {place: number for number, places in enumerate(FLOORS) for place in places}

    def place_of(module: str) -> str | None:
        inner = module.partition(".")[2] or "__init__"
        return max((place for place in height if f"{inner}.".startswith(f"{place}.")), key=len, default=None)

    places = {name: place_of(name) for name in modules}
    homeless = [f"{name} has no place in FLOORS" for name, place in places.items() if place is None]
    found = []
    for each in imports:
        start, end = places[each.importer], places[each.imported]
        if start is not None and end is not None and start != end and height[end] >= height[start]:
            found.append(str(each))
    return Property("imports that run upward", None if homeless else len(found), 0, [*homeless, *found])


def declarations(nodes: Sequence[ast.AST], option: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that declare an option: parameters, fields, operator schemas, rows of a table of options."""
    schema = re.compile(rf"\b(?:Tensor|float|int|bool|str|Scalar|SymInt)\??(?:\[\])? {option}\b")
    for node in nodes:
        match node:
            case ast.arg(arg=name) if name == option:
                yield node.lineno, "parameter"
            case ast.ClassDef(body=body):
                for each in body:
                    if isinstance(each, ast.AnnAssign) and getattr(each.target, "id", None) == option:
                        yield each.lineno, f"field of {node.name}"
            case ast.Constant(value=str(text)) if schema.search(text):
                yield node.lineno, "schema"
            case ast.Call(args=[ast.Constant(value=name), *_]) if name == option and "Option" in ast.unparse(node.func):
                yield node.lineno, "row of a table"


def read_by_number(nodes: Sequence[ast.AST]) -> set[int]:
    """Return the lines that read a tuple of arguments by number, or return more than three Nones by their count."""

    def is_number(node: ast.expr | None) -> bool:
        match node:
            case None | ast.Constant(value=int()) | ast.UnaryOp(operand=ast.Constant(value=int())):
                return True
            case ast.Slice(lower=lower, upper=upper):
                return is_number(lower) and is_number(upper)
        return False

    lines = set()
    for node in nodes:
        match node:
            case ast.Subscript(value=value, slice=index) if names(value) & BY_NUMBER and is_number(index):
                lines.add(node.lineno)
            case ast.BinOp(left=ast.Tuple(elts=[ast.Constant(value=None)]), right=ast.Constant(value=int(n))) if n > 3:
                lines.add(node.lineno)
    return lines


def device_branches(nodes: Sequence[ast.AST]) -> set[int]:
    """Return the lines of conditions that ask where a tensor lies."""
    return {
        node.test.lineno
        for node in nodes
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert)
        and any(names(each) & ON_DEVICE for each in ast.walk(node.test))
    }


def files_of(root: Path) -> list[str]:
    """Return the committed files, or all files where the folder is no repository."""
    if not (root / ".git").exists():
        return [path.relative_to(root).as_posix() for path in root.rglob("*")]
    done = subprocess.run(["git", "-C", root, "ls-files"], capture_output=True, text=True, check=True)
    return [each for each in done.stdout.splitlines() if (root / each).exists()]


def measure(root: Path) -> list[Property]:
    """Return the properties of the one package under ``root/src``."""
    (folder,) = (path.parent for path in (root / "src").glob("*/__init__.py"))
    modules = read(folder)
    rooms = sorted(name for name, module in modules.items() if module.path.endswith("__init__.py"))
    found = [each for module in modules.values() for each in _Imports(module, modules, folder.name).found]
    known = [each for each in found if each.imported in modules]
    imports = [each for each in known if each.when != "types"]

    pairs = [(each.importer, each.imported) for each in imports]
    whole, *parts = (chain(inside(pairs, room)) for room in rooms)
    of_modules = circles(graph(pairs))
    with_types = circles(graph((each.importer, each.imported) for each in known))
    of_rooms = [
        f"{room}: {circle}"
        for room in rooms
        for circle in circles(inside(pairs, room))
        if any(f"{room}.{entry}" in rooms for entry in circle.split(" ↔ "))
    ]
    faces = [str(each) for each in imports if f"{each.importer}.".startswith(f"{each.imported}.")]
    absent = [str(each) for each in found if each.imported not in modules]
    entries = sorted(path.name for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())
    declared, numbered, branches = [], [], []
    classes: dict[str, list[str]] = defaultdict(list)
    for path, nodes in ((each.path, each.nodes) for each in modules.values()):
        declared += [f"{path}:{line} ({what})" for line, what in declarations(nodes, OPTION)]
        numbered += [f"{path}:{line}" for line in sorted(read_by_number(nodes))]
        branches += [f"{path}:{line}" for line in sorted(device_branches(nodes)) if path.startswith("torch/")]
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{path}:{node.lineno}")
    again = [
        f"{name}: {', '.join(places)}"
        for name, places in sorted(classes.items())
        if len(places) > 1 and {place.partition(":")[0] for place in places} != SHARED_NAMES.get(name)
    ]
    size = {each.path: each.lines for each in modules.values()}
    ledger = root / "tools" / "new_capabilities.toml"
    new = tomllib.loads(ledger.read_text(encoding="utf-8")) if ledger.exists() else {}
    long = [f"{path}: {lines}" for path, lines in size.items() if lines > LINES and path not in LONG_FILES]
    built = [each for each in files_of(root) if any(fnmatch(each, pattern) for pattern in BUILD_PRODUCTS)]

    def listed(name: str, limit: int | None, where: Sequence[str]) -> Property:
        return Property(name, len(where), limit, where)

    return [
        listed(f"entries directly under `src/{folder.name}`", 12, entries),
        listed("floors of the whole house", 7, whole),
        listed("floors inside the deepest room", None, max(parts, key=len, default=())),
        listed("import circles between modules", 0, of_modules),
        listed("import circles between rooms", 0, of_rooms),
        listed("further circles with the imports for types", None, sorted({*with_types} - {*of_modules})),
        upward(imports, modules),
        listed("imports of an `__init__` from inside its room", 0, faces),
        listed("imports of modules that do not exist", 0, absent),
        listed(f"places that declare `{OPTION}`", 5, declared),
        listed("lines that read arguments by number", 0, numbered),
        listed("branches on the device in `torch`", 1, branches),
        listed("names that more than one class has", 0, again),
        Property("lines of Python under `src`", sum(size.values())),
        # The goal is 21 000: the limit may fall, not rise.
        Property("the same without `jax` and what is new", sum(of_the_house(size, new).values()), 23_600),
        *(Property(f"lines of {name.replace('-', ' ')}", added) for name, added in lines_of_each(size, new).items()),
        listed("modules of `new_capabilities.toml` that do not exist", 0, sorted({*lines_before(new)} - {*size})),
        listed(f"files above {LINES} lines", 0, long),
        listed("committed build products", 0, built),
    ]


def of_the_house(size: Mapping[str, int], new: Mapping[str, Any]) -> dict[str, int]:
    """Return, for each path, the lines that the goal counts: without JAX and without what new capabilities added."""
    before = lines_before(new)
    return {path: min(lines, before.get(path, lines)) for path, lines in size.items() if not path.startswith("jax/")}


def lines_of_each(size: Mapping[str, int], new: Mapping[str, Any]) -> dict[str, int]:
    """Return how many lines each new capability added; those of a module that several extended count for each."""
    return {
        name: sum(size.get(path, 0) - before for path, before in lines_before({name: capability}).items())
        for name, capability in new.items()
    }


def lines_before(new: Mapping[str, Any]) -> dict[str, int]:
    """Return, for each path that ``new_capabilities.toml`` names, its lines at the rebuild: 0 for a new module."""
    return {
        path: lines
        for capability in new.values()
        for path, lines in (*((each, 0) for each in capability["modules"]), *capability.get("extended", {}).items())
    }


def at_revision(root: Path, revision: str) -> list[Property]:
    """Return the properties of a revision, from a temporary copy of its files."""
    archive = subprocess.run(["git", "-C", root, "archive", revision], capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=BytesIO(archive)) as files:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.2, Debian's, has none
            files.extraction_filter = tarfile.data_filter
        files.extractall(folder)  # noqa: S202 - the archive is git's
        return measure(Path(folder))


def table(columns: Mapping[str, Sequence[Property]]) -> str:
    """Return a Markdown table with a row for each property and a column for each revision."""
    rows = [["property", *columns, "limit"], ["---"] * (len(columns) + 2)]
    for same in zip(*columns.values(), strict=True):
        numbers = [*(each.value for each in same), same[-1].limit]
        rows.append([same[-1].name, *("-" if each is None else str(each) for each in numbers)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the properties; return 1 if they are checked and a limit is exceeded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the repository")
    parser.add_argument("--base", metavar="REV", help="a revision to stand beside")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a limit is exceeded")
    parser.add_argument("--json", action="store_true", help="values, limits and places as JSON")
    options = parser.parse_args(arguments)
    now = measure(options.root)
    columns = {**({options.base: at_revision(options.root, options.base)} if options.base else {}), "now": now}
    if options.json:
        print(json.dumps({name: [asdict(each) for each in values] for name, values in columns.items()}, indent=1))
    else:
        print(table(columns))
        for each in now:
            if each.exceeded:
                print(f"\n{each.name}: {'no number' if each.value is None else each.value}, limit {each.limit}")
                shown = [*each.where[:SHOWN], *[f"... (all {len(each.where)}: --json)"][: len(each.where) > SHOWN]]
                print("\n".join(f"  {place}" for place in shown))
    return int(options.check and any(each.exceeded for each in now))


if __name__ == "__main__":
    sys.exit(main())
