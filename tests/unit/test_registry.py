from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncworker import registry
from asyncworker.errors import UnknownName


@pytest.fixture
def fresh() -> Iterator[None]:
    registry.names.cache_clear()
    yield
    registry.names.cache_clear()


@pytest.mark.parametrize("room", registry.ROOMS)
def test_names_are_the_files_of_the_room(room: str):
    folder = Path(registry.__file__).parent.joinpath(*registry.ROOMS[room].split(".")[1:])
    assert registry.names(room) == tuple(sorted({file.stem for file in folder.glob("*.py")} - {"__init__", room}))


def test_a_name_opens_its_file():
    module = registry.find("broker", "memory")
    assert module.__name__ == "asyncworker.queue.brokers.memory"
    assert callable(module.open)


def test_aliases_lead_to_files():
    for room, aliases in registry.ALIASES.items():
        for alias, name in aliases.items():
            assert name in registry.names(room), f"{alias} leads nowhere"
            assert alias not in registry.names(room), f"{alias} hides a file"


def test_an_alias_is_its_file():
    assert registry.find("broker", "rediss") is registry.find("broker", "redis")


@pytest.mark.parametrize(
    "name",
    ["", "broker", "__init__", "os", "os.system", "../memory", "memory.open", "Memory", "m\u0435mory", "memory\n"],
)
def test_other_names_are_unknown_and_import_nothing(name: str):
    registry.find("broker", "memory")
    before = set(sys.modules)
    with pytest.raises(UnknownName) as caught:
        registry.find("broker", name)
    assert (caught.value.kind, caught.value.name) == ("broker", name)
    assert set(sys.modules) == before


def test_the_nearest_is_named():
    with pytest.raises(UnknownName, match="unknown broker 'memroy'; did you mean 'memory'"):
        registry.find("broker", "memroy")
    with pytest.raises(UnknownName, match="did you mean 'rediss'"):
        registry.find("broker", "redisss")


@pytest.mark.parametrize("name", ["redis", "rediss", "memory"])
def test_nobody_outside_is_asked_for_our_own(fresh: None, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr(importlib.metadata, "entry_points", None)
    assert registry.knows("broker", name)
    registry.find("broker", name)
    with pytest.raises(TypeError):
        registry.knows("broker", "other")


def test_outsiders_come_by_entry_points(fresh: None, monkeypatch: pytest.MonkeyPatch):
    point = importlib.metadata.EntryPoint("outside", "json", "asyncworker.broker")
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: (point,) if group == "asyncworker.broker" else ()
    )
    assert "outside" in registry.names("broker")
    assert registry.knows("broker", "outside")
    assert registry.find("broker", "outside").__name__ == "json"
    with pytest.raises(UnknownName):
        registry.find("source", "outside")
