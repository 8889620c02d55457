from __future__ import annotations

import io
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncworker.cli.command import Call
from asyncworker.cli.target import client_for, engine_for, load
from asyncworker.engine import Engine
from asyncworker.errors import SettingsError
from asyncworker.settings import load as load_settings

SHOP = """
    from asyncworker import Engine
    engine = Engine("redis://localhost", queues={"mail": 2, "default": 5}, lease=7.0)
    number = 5
    class Inside:
        engine = engine
    def made():
        return engine
    def broken():
        raise ZeroDivisionError("by\\nme")
"""


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shop_x.py").write_text(textwrap.dedent(SHOP))
    (tmp_path / "ruin_x.py").write_text("x = 1\nimport nothing_like_this\n")
    (tmp_path / "typo_x.py").write_text("x = = 1\n")
    (tmp_path / "pack_x").mkdir()
    (tmp_path / "pack_x" / "__init__.py").write_text("")
    (tmp_path / "pack_x" / "sub.py").write_text("from shop_x import engine as app\n")
    yield
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_x")]:
        del sys.modules[name]


def call(**flags: str) -> Call:
    return Call(load_settings(flags, {}), io.StringIO(), io.StringIO())


@pytest.mark.parametrize("target", ["shop_x:engine", "shop_x", "shop_x:made", "shop_x:Inside.engine", "pack_x.sub:app"])
def test_an_engine_is_found_by_module_and_name(target: str) -> None:
    assert isinstance(load(target), Engine)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nothing_x:engine", "'nothing_x:engine': there is no module 'nothing_x' in "),
        ("pack_x.nix:app", "there is no module 'pack_x.nix' in "),
        ("shop_x:engin", "shop_x has no 'engin'; did you mean 'engine'?"),
        ("pack_x.sub", "pack_x.sub has no 'engine'"),
        ("shop_x:number", "is of type int, not an Engine"),
        ("shop_x:broken", "cannot be used: ZeroDivisionError: by\nme (shop_x.py, line 10)"),
        ("ruin_x:engine", "cannot be used: No module named 'nothing_like_this' (ruin_x.py, line 2)"),
        ("typo_x:engine", "cannot be used: SyntaxError: "),
        (":engine", "cannot be used: ValueError: Empty module name"),
    ],
)
def test_what_is_wrong_with_a_target_is_said(target: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        load(target)


def test_what_was_set_goes_before_what_the_engine_says() -> None:
    engine = engine_for(
        call(app="shop_x:engine", broker="unix:///x", lease="3s", queues="mail", namespace="n", db_name="d")
    )
    assert (engine.url, engine.lease, engine.namespace) == ("unix:///x", 3.0, "n")
    assert engine.queues == {"mail": 2}
    assert engine.database == "postgresql://localhost/d"


def test_what_was_not_set_is_the_engines_own() -> None:
    engine = engine_for(call(app="shop_x:engine", queues="other"))
    assert (engine.url, engine.lease, engine.namespace) == ("redis://localhost", 7.0, "asyncworker")
    assert engine.queues == ("other",)
    assert client_for(call(app="shop_x:engine")).url == "redis://localhost"


def test_a_client_needs_a_broker_that_others_reach() -> None:
    with pytest.raises(SettingsError, match="no broker is set; memory:// lives in one process alone: give --broker"):
        client_for(call())
    with pytest.raises(SettingsError, match=r"^embedded:// lives in one process alone"):
        client_for(call(broker="embedded://"))
