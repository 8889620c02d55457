"""The rules of the house, each a function from a module to its complaints; `tests/test_house.py` asks them.

The tables at the head are the plan of the house: who stands on which floor, which file adapts which library,
and each named exception with its reason.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]

FLOORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "front",
        (
            "__init__",
            "__main__",
            "cli",
            "daemon",
            "engine",
            "optimizer",
            "testing",
            "auto",
            "flow",
            "schedules",
            "strikes",
            "job",
            "calls",
            "enqueued",
            "task",
            "tracing",
        ),
    ),
    ("fleet", ("fleet",)),
    ("mapreduce", ("mapreduce",)),
    ("queue", ("queue",)),
    ("work", ("work",)),
    ("tune", ("tune",)),
    ("share", ("share",)),
    (
        "ground",
        (
            "errors",
            "events",
            "finding",
            "clock",
            "registry",
            "kind",
            "settings",
            "secret",
            "lifeline",
            "processors",
            "__version__",
        ),
    ),
)
"""From the roof down: a module imports from its own floor and from those below."""

SHARED = {"asyncworker.tune.actuators.limiter"}
"""Siblings that others of their room may know."""

BY_NAME = {
    "asyncworker": "its names are imported when first used",
    "asyncworker.registry": "opens implementations by their names",
    "asyncworker.cli": "loads the command that was asked for",
    "asyncworker.work.finder": "finds a task's function by the name under which it was registered",
    "asyncworker.cli.target": "loads the module:engine that the user typed",
    "asyncworker.cli.worker": "loads what a plain worker does without",
}
"""Where modules are imported by name."""

LIBRARIES: dict[str, tuple[str, ...]] = {
    "aiohttp": ("daemon.*", "mapreduce.lookups.http"),
    "asyncpg": (
        "queue.outboxes.postgresql",
        "queue.stores.postgresql",
        "mapreduce.database",
        "tune.drivers.postgresql",
    ),
    "click": ("cli", "cli.*"),
    "cronsim": ("queue.schedule",),
    "hiredis": ("queue.blocking", "queue.inbox", "queue.link", "queue.wire"),
    "jinja2": ("daemon.*",),
    "msgspec": ("*",),
    "opentelemetry": ("tracing",),
    "prometheus_client": ("daemon.*",),
    "pyarrow": ("mapreduce.sources.parquet",),
    "pytest": ("testing",),
    "psutil": ("tune.sensors.*",),
    "re2": ("mapreduce.pattern",),
    "redis": ("queue.addresses.cluster", "queue.addresses.rediss", "queue.addresses.sentinel", "tune.drivers.redis"),
    "rich": ("cli.*",),
    "simpleeval": ("mapreduce.expression",),
    "uvloop": ("cli.command",),
}
"""A library and the files that may import it."""

LAZY: dict[str, str] = {
    "cli.command": "uvloop is not on each platform",
    "cli.progress": "as cli.table",
    "cli.table": "rich takes 0.2 s to import and is needed by those who look at tables alone",
}
"""Files that may import a third-party library inside a function."""

BROAD = {
    "queue.worker.runner": "a user's task may raise anything",
    "queue.worker.attempt": "the text of a user's error may raise anything",
    "mapreduce.folding": "a user's function may raise anything, item by item",
    "events": "a listener may not disturb the work",
    "daemon.guard": "the last one before the client: what nobody foresaw is logged, and told without its words",
    "work.callee": "a user's function may raise anything in its process",
    "queue.hooks": "a user's hook may not disturb the work",
    "queue.worker.worker": "the context in which a worker lives is the user's; what it raises becomes a SettingsError",
    "cli": "the last one before the user: what nobody foresaw is told in one line",
    "work.stream": "a user's function may raise anything, item by item",
    "tune.metered": "what a coroutine raises, or is thrown, passes through once its step is counted",
    "work.batch": "a user's handler may raise anything, batch by batch",
    "work.pipeline": "a user's stage may raise anything, item by item",
    "cli.target": "the user's module may raise anything while it is imported",
}
"""Files that may catch Exception."""

LAST_STOPS = {
    "queue.worker.runner": "cancelling a job's own asyncio task is how the worker ends the job",
}
"""Files in which a cancellation ends, each with its reason."""

LONG: dict[str, str] = {
    "engine": "a method for each verb of the public face, and what it promises; what they do stands elsewhere",
    "queue.brokers.memory": "one broker's whole state machine; redis.py has the same in its scripts",
}
"""Files over 400 lines, each with its reason."""

LONGEST = 400
VAGUE = {"util", "utils", "common", "helper", "helpers", "base", "manager", "misc", "tools"}
SEEDS_WORDS = {"fleet.manager"}
"""Files whose name is a seed's own."""

FORBIDDEN = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "dbm"}
CALLS = {"eval", "exec", "compile", "__import__"}


@dataclass
class Module:
    """One file of the package: its dotted name and its text."""

    name: str
    source: str
    is_package: bool = False
    room: frozenset[str] = field(default_factory=frozenset)
    """The names of the files beside it."""

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def short(self) -> str:
        return self.name.partition(".")[2]

    @cached_property
    def imports(self) -> list[Import]:
        return list(_imports(self.tree, self.name if self.is_package else self.name.rpartition(".")[0]))


@dataclass(frozen=True)
class Import:
    line: int
    target: str
    """The module, with the imported name for ``from x import y``."""
    place: str
    """``""`` at the top, else ``function`` or ``TYPE_CHECKING``."""

    @property
    def ours(self) -> bool:
        return self.target.partition(".")[0] == "asyncworker"

    def into(self, module: str) -> bool:
        return self.target == module or self.target.startswith(f"{module}.")


Rule = Callable[[Module], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


def modules() -> list[Module]:
    """Return every module of the package."""
    found = []
    for path in sorted((ROOT / "asyncworker").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if package else parts)
        room = frozenset(other.stem for other in path.parent.glob("*.py"))
        found.append(Module(name, path.read_text("utf-8"), package, room))
    return found


def complaints(name: str, over: list[Module]) -> list[str]:
    return [f"{module.name}: {complaint}" for module in over for complaint in RULES[name](module)]


@rule
def imports_go_down(module: Module) -> Iterator[str]:
    """A module imports from its own floor and from those below."""
    here = _floor(module.name)
    if here is None:
        yield "stands on no floor; FLOORS in tests/support/house.py wants to know"
        return
    for found in module.imports:
        # A name that is no module stands in ``asyncworker/__init__.py``.
        if found.ours and (_floor(found.target) or 0) < here:
            yield f"line {found.line}: imports {found.target}, which stands above"


@rule
def settings_are_read_by_the_front(module: Module) -> Iterator[str]:
    """Below the front, constructors take plain arguments."""
    if _floor(module.name) == 0 or module.name == "asyncworker.settings":
        return
    for found in module.imports:
        if found.into("asyncworker.settings"):
            yield f"line {found.line}: reads the settings"


@rule
def siblings_know_their_singular(module: Module) -> Iterator[str]:
    """In a plural room a file imports what all of them are, and no other sibling."""
    room = module.name.rpartition(".")[0]
    singular = _singular(room.rpartition(".")[2])
    if singular not in module.room or module.is_package:
        return
    allowed = {f"{room}.{singular}", *SHARED}
    for found in module.imports:
        if found.into(room) and not any(found.into(name) for name in allowed):
            yield f"line {found.line}: knows its sibling {found.target}"


@rule
def own_modules_are_imported_at_the_top(module: Module) -> Iterator[str]:
    """Who needs an import in a function or for types alone has a word on the wrong floor."""
    if module.name in BY_NAME:
        return
    for found in module.imports:
        if found.ours and found.place:
            yield f"line {found.line}: imports {found.target} in a place of its own ({found.place})"


@rule
def names_are_imported_in_named_places(module: Module) -> Iterator[str]:
    """Modules are imported by name in few places, so that no message can name one."""
    if module.name in BY_NAME:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and _dotted(node) in {"importlib.import_module", "import_module"}:
            yield f"line {node.lineno}: imports by name"


@rule
def libraries_have_their_adapters(module: Module) -> Iterator[str]:
    """A third-party library is imported only by the files that adapt it, at their top."""
    for found in module.imports:
        library = found.target.partition(".")[0]
        if library in sys.stdlib_module_names or found.ours or library == "__future__":
            continue
        if library not in LIBRARIES:
            yield f"line {found.line}: imports {library}, which has no adapter"
        elif not any(_matches(module.short, pattern) for pattern in LIBRARIES[library]):
            yield f"line {found.line}: imports {library}, which belongs to {', '.join(LIBRARIES[library])}"
        elif found.place == "function" and module.short not in LAZY:
            yield f"line {found.line}: imports {library} inside a function"


@rule
def nothing_that_runs_data(module: Module) -> Iterator[str]:
    """No pickle, marshal, shelve; no eval, exec, compile (S50)."""
    for found in module.imports:
        if found.target.partition(".")[0] in FORBIDDEN:
            yield f"line {found.line}: imports {found.target}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and (isinstance(node.func, ast.Name) and node.func.id in CALLS):
            yield f"line {node.lineno}: calls {node.func.id}"
        if isinstance(node, ast.Attribute) and _dotted(node).startswith("builtins.") and node.attr in CALLS:
            yield f"line {node.lineno}: calls {node.attr}"


@rule
def broad_excepts_stand_in_named_places(module: Module) -> Iterator[str]:
    """``except Exception`` stands around users' code alone; elsewhere what is caught so is raised again."""
    if module.short in BROAD:
        return
    for node, raises in _caught(module.tree, {"Exception", "BaseException"}):
        if raises != "last":
            yield f"line {node.lineno}: catches everything"


@rule
def cancellation_is_not_swallowed(module: Module) -> Iterator[str]:
    """Who catches a cancellation raises it, at least where it was meant for this task."""
    if module.short in LAST_STOPS:
        return
    for node, raises in _caught(module.tree, {"CancelledError", "asyncio.CancelledError"}):
        if not raises:
            yield f"line {node.lineno}: swallows a cancellation"


@rule
def nothing_prints(module: Module) -> Iterator[str]:
    """Only the command line writes to the terminal."""
    if module.short == "cli" or module.short.startswith("cli."):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _dotted(node.func) == "print":
            yield f"line {node.lineno}: prints"
        if isinstance(node, ast.Attribute) and _dotted(node) in {"sys.stdout", "sys.stderr"}:
            yield f"line {node.lineno}: uses {_dotted(node)}"


@rule
def modules_say_what_they_are_for(module: Module) -> Iterator[str]:
    """A module has a docstring, and postpones its annotations."""
    if module.is_package and not module.source.strip():
        return
    if not ast.get_docstring(module.tree):
        yield "has no docstring"
    if len(module.tree.body) > 1 and not any(found.target == "__future__.annotations" for found in module.imports):
        yield "lacks `from __future__ import annotations`"


@rule
def long_files_have_a_reason(module: Module) -> Iterator[str]:
    """A file over 400 lines is named, with its reason; one that has shrunk is named no more."""
    lines = module.source.count("\n")
    if lines > LONGEST and module.short not in LONG:
        yield f"has {lines} lines: does a second idea begin in it? Else name it in LONG"
    if lines <= LONGEST and module.short in LONG:
        yield f"has {lines} lines: strike it from LONG"


@rule
def names_say_something(module: Module) -> Iterator[str]:
    """No file is a drawer."""
    word = module.name.rpartition(".")[2]
    if word in VAGUE and module.short not in SEEDS_WORDS:
        yield f"is called {word!r}"


@rule
def nothing_is_unfinished(module: Module) -> Iterator[str]:
    """No marks for later, no stubs, no checks that are switched off for all."""
    for number, line in enumerate(module.source.splitlines(), 1):
        if found := re.search(
            r"\b(TODO|FIXME|XXX|NotImplementedError)\b|pragma: no cover|# type: ignore(?!\[)|# ruff: noqa|# mypy:", line
        ):
            yield f"line {number}: {found[0]}"


@rule
def each_noqa_has_its_reason(module: Module) -> Iterator[str]:
    """``# noqa: CODE - reason``."""
    for number, line in enumerate(module.source.splitlines(), 1):
        if "# noqa" in line and not re.search(r"# noqa: [A-Z0-9, ]+? - \S.{4,}", line):
            yield f"line {number}: a noqa without its code or reason"


@rule
def all_is_sorted(module: Module) -> Iterator[str]:
    """``__all__`` is sorted, and what it names is there."""
    if "__all__" not in module.source:
        return
    names = [
        node for node in module.tree.body if isinstance(node, ast.Assign) and _dotted(node.targets[0]) == "__all__"
    ]
    for node in names:
        if isinstance(node.value, ast.List | ast.Tuple):
            words = [word.value for word in node.value.elts if isinstance(word, ast.Constant)]
            if words != sorted(words):
                yield f"line {node.lineno}: __all__ is not sorted"


@rule
def text_is_of_the_project_alone(module: Module) -> Iterator[str]:
    """No path of somebody's machine, no address of a package registry."""
    for number, line in enumerate(module.source.splitlines(), 1):
        if found := re.search(r"(?<![\w.])/(home|root|work|Users)/\w|https?://\S*(/simple\b|registry|pypi\.org)", line):
            yield f"line {number}: {found[0]}"


def _imports(tree: ast.Module, package: str) -> Iterator[Import]:
    def visit(node: ast.AST, place: str) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = place
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                inside = "function"
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                inside = place or "TYPE_CHECKING"
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(child.lineno, alias.name, place)
            elif isinstance(child, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) + 1 - child.level] if child.level else []
                base = ".".join([*above, *([child.module] if child.module else [])])
                for alias in child.names:
                    yield Import(child.lineno, f"{base}.{alias.name}", place)
            else:
                yield from visit(child, inside)

    yield from visit(tree, "")


def _floor(name: str) -> int | None:
    first = f"{name}.".split(".")[1] or "__init__"
    return next((height for height, (_, rooms) in enumerate(FLOORS) if first in rooms), None)


def _singular(room: str) -> str | None:
    if room.endswith("ies"):
        return f"{room[:-3]}y"
    return room[:-1] if room.endswith("s") else None


def _matches(short: str, pattern: str) -> bool:
    return pattern in {"*", short} or (pattern.endswith(".*") and short.startswith(pattern[:-1]))


def _dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _caught(tree: ast.Module, kinds: set[str]) -> Iterator[tuple[ast.ExceptHandler | ast.Call, str]]:
    """Yield where errors of these kinds are caught or suppressed, and whether there is a ``raise``, or it is the last."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            named = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type or ast.Name("BaseException")]
            raises = "some" if any(isinstance(inside, ast.Raise) for inside in ast.walk(node)) else ""
            if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
                raises = "last"
        elif isinstance(node, ast.Call) and _dotted(node.func) in {"suppress", "contextlib.suppress"}:
            named, raises = node.args, ""
        else:
            continue
        if any(_dotted(kind) in kinds for kind in named):
            yield node, raises
