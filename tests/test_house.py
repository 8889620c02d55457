"""The house looks after itself: floors, siblings, libraries, and what each module owes to its readers.

The rules are in `tests/support/house.py`; each is seen to fail here on a few lines that break it.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import asyncworker
from asyncworker import cli
from tests.support import house
from tests.support.house import RULES, Module

MODULES = house.modules()
HEAVY = {"aiohttp", "asyncpg", "click", "jinja2", "msgspec", "prometheus_client", "psutil", "redis", "rich", "uvloop"}


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_its_rules(rule: str) -> None:
    assert not house.complaints(rule, MODULES), RULES[rule].__doc__


def test_each_flaw_of_map_reduce_and_each_fault_of_it_has_tests_that_name_it() -> None:
    """S01 to S23 are what went wrong in the code that this began with, F8, F15 and F20 what is done to jobs."""
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    named = set(re.findall(r"(?<=_)[sf]\d+(?=_)", "".join(re.findall(r"def test_\w+", tests))))
    wanted = {f"s{number:02}" for number in range(1, 24)} | {"f8", "f15", "f20"}
    assert not wanted - named


HEAD = '"""What it is for."""\nfrom __future__ import annotations\n'
BROKEN: list[tuple[str, str, str]] = [
    ("imports_go_down", "queue.x", "from asyncworker.mapreduce import job"),
    ("imports_go_down", "queue.x", "import asyncworker.engine"),
    ("imports_go_down", "queue.x", "from asyncworker import Engine"),
    ("imports_go_down", "queue.brokers.x", "from ...fleet import child"),
    ("imports_go_down", "clock", "def f():\n    import asyncworker.share.ipc"),
    ("imports_go_down", "attic.x", ""),
    ("settings_are_read_by_the_front", "fleet.x", "from asyncworker.settings import load"),
    ("siblings_know_their_singular", "queue.brokers.x", "from asyncworker.queue.brokers.redis import open"),
    ("siblings_know_their_singular", "queue.brokers.x", "from asyncworker.queue.brokers import redis"),
    ("siblings_know_their_singular", "queue.brokers.x", "from . import redis"),
    ("own_modules_are_imported_at_the_top", "engine", "def f():\n    from asyncworker.errors import Retry"),
    (
        "own_modules_are_imported_at_the_top",
        "engine",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from asyncworker.errors import Retry",
    ),
    ("names_are_imported_in_named_places", "queue.x", "import importlib\nimportlib.import_module(name)"),
    ("names_are_imported_in_named_places", "queue.x", "from importlib import import_module as i\nimport_module(name)"),
    ("libraries_have_their_adapters", "queue.x", "import requests"),
    ("libraries_have_their_adapters", "queue.x", "from redis.asyncio import Redis"),
    ("libraries_have_their_adapters", "queue.addresses.cluster", "def f():\n    import redis"),
    ("nothing_that_runs_data", "queue.x", "import pickle"),
    ("nothing_that_runs_data", "queue.x", "def f():\n    from marshal import loads"),
    ("nothing_that_runs_data", "queue.x", "eval('1')"),
    ("nothing_that_runs_data", "queue.x", "import builtins\nrun = builtins.exec"),
    ("broad_excepts_stand_in_named_places", "queue.x", "try:\n    f()\nexcept Exception:\n    pass"),
    ("broad_excepts_stand_in_named_places", "queue.x", "try:\n    f()\nexcept (OSError, BaseException) as e:\n    g()"),
    ("broad_excepts_stand_in_named_places", "queue.x", "try:\n    f()\nexcept:\n    pass"),
    ("broad_excepts_stand_in_named_places", "queue.x", "with suppress(Exception):\n    f()"),
    ("cancellation_is_not_swallowed", "queue.x", "try:\n    f()\nexcept (OSError, CancelledError):\n    pass"),
    ("cancellation_is_not_swallowed", "queue.x", "with contextlib.suppress(asyncio.CancelledError):\n    f()"),
    ("nothing_prints", "queue.x", "print('hello')"),
    ("nothing_prints", "queue.x", "import sys\nsys.stderr.write('hello')"),
    ("long_files_have_a_reason", "queue.x", "\n" * 400),
    ("names_say_something", "queue.utils", ""),
    ("nothing_is_unfinished", "queue.x", "# TODO: later"),
    ("nothing_is_unfinished", "queue.x", "raise NotImplementedError"),
    ("nothing_is_unfinished", "queue.x", "x = f()  # type: ignore"),
    ("each_noqa_has_its_reason", "queue.x", "x = 1  # noqa"),
    ("each_noqa_has_its_reason", "queue.x", "x = 1  # noqa: E501"),
    ("all_is_sorted", "queue.x", "__all__ = ['b', 'a']"),
    ("text_is_of_the_project_alone", "queue.x", "PLACE = '/home/somebody/x'"),
    ("text_is_of_the_project_alone", "queue.x", "INDEX = 'https://example.org/simple/'"),
]


@pytest.mark.parametrize(("rule", "name", "source"), BROKEN)
def test_each_rule_sees_what_breaks_it(rule: str, name: str, source: str) -> None:
    assert list(RULES[rule](_module(name, HEAD + source)))


@pytest.mark.parametrize("source", ["from __future__ import annotations\nx = 1", '"""Words."""\nx = 1'])
def test_a_module_without_words_is_seen(source: str) -> None:
    assert list(RULES["modules_say_what_they_are_for"](_module("queue.x", source)))


def test_a_file_that_has_shrunk_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(house.LONG, "queue.x", "it was long")
    assert list(RULES["long_files_have_a_reason"](_module("queue.x", HEAD)))


def test_each_rule_has_been_seen_to_fail() -> None:
    assert {rule for rule, _, _ in BROKEN} | {"modules_say_what_they_are_for"} == set(RULES)


GOOD = [
    ("queue.x", "from asyncworker.work import batch\nfrom asyncworker.errors import Retry\nfrom . import job"),
    ("queue.brokers.x", "from asyncworker.queue.brokers.broker import Broker\nimport msgspec"),
    ("queue.addresses.cluster", "import redis.asyncio\nfrom ..job import Job"),
    ("queue.x", "try:\n    f()\nexcept BaseException:\n    g()\n    raise"),
    ("queue.x", "with suppress(OSError):\n    f()\n__all__ = ['a', 'b']"),
    ("queue.x", "x = 1  # noqa: S108, E501 - a directory of our own\ny = f()  # type: ignore[arg-type]"),
    ("work.stream", "try:\n    f()\nexcept Exception:\n    pass"),
    ("cli.table", "def f():\n    import rich\n    print(rich)"),
]


@pytest.mark.parametrize(("name", "source"), GOOD)
def test_no_rule_complains_of_what_is_right(name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "LONG", {})
    assert [list(rule(_module(name, HEAD + source))) for rule in RULES.values()] == [[]] * len(RULES)


def _module(short: str, source: str) -> Module:
    room = frozenset({"broker", "redis", "x"}) if short.startswith("queue.brokers.") else frozenset({"x"})
    return Module(f"asyncworker.{short}", source, room=room)


@pytest.mark.parametrize("table", [house.BROAD, house.LAZY, house.LAST_STOPS, house.LONG, house.BY_NAME])
def test_exceptions_are_named_for_files_that_are_there(table: dict[str, str]) -> None:
    names = {module.name.removeprefix("asyncworker.") for module in MODULES}
    assert {name.removeprefix("asyncworker.") for name in table} <= names
    assert all(len(reason) > 10 for reason in table.values())


def test_s50_nothing_in_the_package_unpickles_or_evaluates() -> None:
    assert not house.complaints("nothing_that_runs_data", MODULES)


@pytest.mark.parametrize("name", [module.name for module in MODULES if not module.name.endswith("__main__")])
def test_s33_every_module_imports(name: str) -> None:
    module = importlib.import_module(name)
    for word in getattr(module, "__all__", ()):
        getattr(module, word)


def test_s33_every_entry_point_answers_help(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = tomllib.loads((house.ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for target in scripts.values():
        main = pkgutil.resolve_name(target)
        asked = list(_commands(cli.commands, ()))
        for path in asked:
            assert main([*path, "--help"]) == 0, path
            assert "Usage: asyncworker" in capsys.readouterr().out
        assert {("run",), ("worker",), ("demo",)} <= set(asked)


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            yield from _commands(child, (*path, name))


def test_the_examples_in_docstrings_are_true() -> None:
    for module in MODULES:
        if ">>>" in module.source:
            assert doctest.testmod(importlib.import_module(module.name)).failed == 0


def test_public_names_are_sorted_and_there() -> None:
    names = [name for name in asyncworker.__all__ if name != "__version__"]
    assert names == sorted(set(names))
    assert all(getattr(asyncworker, name).__name__ for name in names)
    assert set(names) <= set(dir(asyncworker))
    with pytest.raises(AttributeError, match="Nothing"):
        _ = asyncworker.Nothing


def test_type_checkers_see_the_public_names() -> None:
    (front,) = [module for module in MODULES if module.name == "asyncworker"]
    seen = {found.target for found in front.imports if found.place == "TYPE_CHECKING"}
    assert seen == {f"asyncworker.{where}.{name}" for name, where in asyncworker._WHERE.items()}


def test_a_plain_import_brings_in_nothing_heavy() -> None:
    code = "import asyncworker, sys, json; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=house.ROOT)
    assert not HEAVY & set(json.loads(done.stdout))


def test_names_below_errors_are_in_its_tree() -> None:
    _each_class_is_in_the_head_of("errors", "AsyncWorkerError")


def test_events_are_in_their_table() -> None:
    _each_class_is_in_the_head_of("events", "Event")


def _each_class_is_in_the_head_of(name: str, root: str) -> None:
    module = importlib.import_module(f"asyncworker.{name}")
    missing = [kind.__name__ for kind in _below(getattr(module, root)) if kind.__name__ not in (module.__doc__ or "")]
    assert not [kind for kind in missing if hasattr(module, kind)]


def _below(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def test_each_library_that_is_imported_is_declared() -> None:
    project = tomllib.loads((house.ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    words = [*project["dependencies"], *extras["parquet"], *extras["otel"]]
    declared = {word.replace("-", "_").partition("[")[0].partition(">")[0] for word in words}
    distributions = {"re2": "pyre2", "opentelemetry": "opentelemetry_api"}
    imported = {distributions.get(library, library) for library in house.LIBRARIES} - {
        "hiredis",
        "pytest",
    }  # of redis; of those who test
    assert imported <= {word.partition(";")[0].strip() for word in declared}


@pytest.mark.parametrize("path", sorted((house.ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_tests_switch_no_check_off_without_reason(path: object) -> None:
    source = house.Path(str(path)).read_text("utf-8")
    ast.parse(source)
    if path.name in {"house.py", "test_house.py"}:
        return
    module = Module("asyncworker.tests", source)
    for rule in ("each_noqa_has_its_reason", "text_is_of_the_project_alone"):
        assert not list(RULES[rule](module)), path
