"""What each store of the room does: results under names made of what they are, for a time; errors of one kind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from asyncworker import registry
from asyncworker.errors import SettingsError, StoreError
from asyncworker.queue.stores.file import FileStore
from asyncworker.queue.stores.store import Store, name_of


@pytest.fixture(params=registry.names("store"))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    places = {"file": lambda: f"file://{tmp_path}/results%20here"}
    there: str = places.get(request.param, lambda: request.getfixturevalue("postgres_dsn"))()
    return there


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    it: Store = registry.find("store", urlsplit(url).scheme).open(url)
    yield it
    await it.close()


async def test_what_is_stored_comes_back(store: Store) -> None:
    big = os.urandom(3 * 2**20)
    for data in (b"", b"\x00\xff", big):
        name = await store.put(data, 60)
        assert name == name_of(data)
        assert await store.get(name) == data
    assert await store.get(name_of(b"never")) is None


async def test_it_goes_when_its_time_is_over(store: Store) -> None:
    short, long = await store.put(b"short", -1), await store.put(b"long", 60)
    twice = await store.put(b"twice", -1)
    assert await store.get(twice) is None
    assert await store.put(b"twice", 60) == twice
    assert await store.put(b"twice", -1) == twice, "the longest time counts"
    assert await store.get(short) is None
    assert await store.sweep() == 1
    assert await store.sweep() == 0
    assert [await store.get(name) for name in (long, twice)] == [b"long", b"twice"]


async def test_many_may_store_the_same_and_sweep_at_once(store: Store) -> None:
    putting = [store.put(b"%d" % (n % 4), 60) for n in range(40)]
    names, _ = await asyncio.gather(asyncio.gather(*putting), asyncio.gather(*(store.sweep() for _ in range(4))))
    assert [await store.get(name) for name in names[:4]] == [b"%d" % n for n in range(4)]


NAMES = ["", "..", "../../etc/passwd", "/etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "a" * 63 + "/", ".draft"]


@pytest.mark.parametrize("name", NAMES)
async def test_s56_what_is_no_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="no name of a result"):
        await store.get(name)


async def test_it_may_be_closed_at_any_time_and_opens_again(store: Store) -> None:
    await store.close()
    name = await store.put(b"data", 60)
    await store.close()
    assert await store.get(name) == b"data"


# ---------------------------------------------------------------------------------------------------- one of each kind


async def test_s56_files_are_whole_their_owners_and_no_links(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    store = FileStore(folder)
    name, linked, changed = [await store.put(data, 60) for data in (b"data", b"linked", b"changed")]
    assert (folder.stat().st_mode & 0o777, (folder / name).stat().st_mode & 0o777) == (0o700, 0o600)
    assert sorted(one.name for one in folder.iterdir()) == sorted([name, linked, changed])
    (tmp_path / "elsewhere").write_bytes(b"linked")
    (folder / linked).unlink()
    (folder / linked).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot be used"):
        await store.get(linked)
    (folder / linked).unlink()
    (folder / changed).write_bytes(b"chbnged")
    os.utime(folder / changed, (2e9, 2e9))
    with pytest.raises(StoreError, match="not what it was"):
        await store.get(changed)
    draft = folder / ".draft"
    draft.touch()
    assert await store.sweep() == 0, "somebody may be writing it"
    os.utime(draft, (1e9, 1e9))
    assert await store.sweep() == 1


def written_until_killed(folder: Path) -> list[str]:
    """Let another process write results, kill it when it has told of three, and return the names of all files."""
    code = (
        "import asyncio, sys; from pathlib import Path; from asyncworker.queue.stores.file import FileStore\n"
        "store = FileStore(Path(sys.argv[1]))\n"
        "async def main():\n"
        "    for n in range(10**6):\n"
        "        print(await store.put(b'%d' % n * 300_000, 1000), flush=True)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline().decode().strip() for _ in range(3)]
        writer.kill()
    files = [one.name for one in folder.iterdir() if not one.name.startswith(".")]
    assert set(told) <= set(files)
    return files


async def test_s56_who_is_killed_while_it_writes_leaves_nothing_torn(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for name in await asyncio.to_thread(written_until_killed, tmp_path):
        assert await store.get(name)


async def test_a_place_that_cannot_be_used_is_named_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        await FileStore(tmp_path / "file").put(b"data", 60)
    for url in ("file://", "file:///", "file://host/folder"):
        with pytest.raises(SettingsError):
            registry.find("store", "file").open(url)
    away = registry.find("store", "postgres").open(f"postgresql://me:secret@/shop?host={tmp_path}")
    with pytest.raises(StoreError) as caught:
        await away.put(b"data", 60)
    assert "secret" not in str(caught.value) + repr(away)


async def test_a_row_that_was_changed_is_known(postgres_dsn: str) -> None:
    store: Store = registry.find("store", "postgresql").open(postgres_dsn)
    name = await store.put(b"data", 60)
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("UPDATE asyncworker_results SET data = 'date' WHERE name = $1", name)
    await connection.close()
    with pytest.raises(StoreError, match="not what it was"):
        await store.get(name)
    await store.close()
