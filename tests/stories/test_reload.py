"""`asyncworker worker --reload`: what was just written is what runs."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from asyncworker import Engine, SettingsError
from asyncworker.cli.reload import Watched
from tests.support.command import call, started

SHOP = """
from asyncworker import Engine
engine = Engine()
@engine.task()
async def price() -> int:
    return {price}
"""


async def test_a_worker_begins_anew_with_each_change(redis_url: str, namespace: str, tmp_path: Path) -> None:
    shop = tmp_path / "shop.py"
    shop.write_text(SHOP.format(price=1))
    words = ("worker", "shop:engine", "--reload", "--broker", redis_url, "--namespace", namespace)
    async with Engine(redis_url, namespace=namespace) as engine:
        with started(*words, cwd=tmp_path) as worker:
            worker.wait_for("tasks price")
            assert await (await engine.enqueue("price")).result(timeout=20) == 1
            shop.write_text(SHOP.format(price=22))
            worker.wait_for("shop.py changed: starting anew")
            shop.write_text("no Python")
            worker.wait_for("waiting for a change")
            shop.write_text(SHOP.format(price=333))
            assert await (await engine.enqueue("price")).result(timeout=20) == 333
            children = worker.children()
            worker.signal(signal.SIGTERM)
            code, _, _ = worker.end()
    assert code == 0
    assert not any(child.is_running() for child in children)


def test_a_package_is_watched_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "shop" / "orders" / "bill.py"
    deep.parent.mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    deep.touch()
    (tmp_path / "other.py").touch()
    monkeypatch.chdir(tmp_path)
    watched = Watched("shop.orders:engine")
    before = watched.stamps()
    assert {path.name for path in before} == {"__init__.py", "bill.py"}
    deep.write_text("x = 1")
    assert watched.changed(before) == "bill.py"
    deep.unlink()
    assert watched.changed(before) == "bill.py"
    assert {path.name for path in Watched("other:engine").stamps()} == {"other.py"}


@pytest.mark.parametrize(("target", "told"), [(None, "give it as module:name"), ("nowhere:x", "no module 'nowhere'")])
def test_without_files_there_is_nothing_to_watch(target: str | None, told: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=told):
        Watched(target)
    code, _, err = call("worker", *([target] if target else []), "--reload", cwd=tmp_path)
    assert code == 2
    assert told in err
