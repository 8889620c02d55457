"""Shared memory: never torn, whoever writes and whoever dies; private; gone with its maker."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncworker.errors import BadParameters, DecodeError
from asyncworker.share import memory as module
from asyncworker.share.memory import SharedMemoryManager
from asyncworker.share.place import Place, sweep

ROOT = Path(__file__).parents[3]
SIZE = 1 << 16


@pytest.fixture
def shared() -> Iterator[SharedMemoryManager]:
    one = SharedMemoryManager("data_buffer", SIZE)
    assert one.create()
    yield one
    one.cleanup()


def opened(shared: SharedMemoryManager) -> SharedMemoryManager:
    other = SharedMemoryManager(shared.name, shared.size, shared.place)
    assert other.connect()
    return other


def test_s44_what_one_writes_the_other_reads(shared: SharedMemoryManager) -> None:
    other = opened(shared)
    assert other.read_data() == b""
    shared.write_data(b"hello world")
    assert other.read_data() == b"hello world"
    assert other.read_data(5, 6) == b"world"
    other.write_data(b"WORLD", 6)
    assert shared.read_data() == b"hello WORLD"
    shared.write_data(b"!", 20)
    assert other.read_data() == b"hello WORLD" + bytes(9) + b"!"
    shared.write_data(bytes(SIZE))
    assert other.read_data() == bytes(SIZE)
    other.cleanup()
    other.cleanup()


@pytest.mark.parametrize(("length", "offset"), [(1, SIZE), (12, 0), (-1, 0), (1, -1), (1, 11)])
def test_what_was_not_written_cannot_be_read(shared: SharedMemoryManager, length: int, offset: int) -> None:
    shared.write_data(b"hello world")
    with pytest.raises(BadParameters, match="has 11 bytes"):
        shared.read_data(length, offset)


@pytest.mark.parametrize(("length", "offset"), [(SIZE + 1, 0), (1, SIZE), (1, -1)])
def test_what_does_not_fit_is_refused(shared: SharedMemoryManager, length: int, offset: int) -> None:
    with pytest.raises(BadParameters, match="do not fit"):
        shared.write_data(bytes(length), offset)


def test_it_must_be_open_and_of_one_size(shared: SharedMemoryManager) -> None:
    with pytest.raises(BadParameters, match="not open"):
        SharedMemoryManager("x", 10).read_data()
    assert not SharedMemoryManager("x", 10).connect()
    assert not SharedMemoryManager("x", 10, shared.place).connect()
    assert not SharedMemoryManager(shared.name, SIZE, shared.place).create()
    with pytest.raises(BadParameters, match=f"holds {SIZE} bytes"):
        SharedMemoryManager(shared.name, SIZE - 1, shared.place).connect()
    with pytest.raises(BadParameters):
        SharedMemoryManager("x", 0)


def test_s45_names_are_random_private_and_of_one_instance() -> None:
    one, two = (SharedMemoryManager("data_buffer", 100) for _ in range(2))
    assert one.create()
    assert two.create(), "two instances coexist"
    assert one.place is not None
    assert one.place != two.place
    assert one.place.stat().st_mode & 0o777 == 0o700
    (file,) = one.place.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "data_buffer" not in file.name
    place = one.place
    one.cleanup()
    assert not place.exists()
    two.write_data(b"still there")
    two.cleanup()


MAKER = """
import sys
from asyncworker.share.memory import SharedMemoryManager
one = SharedMemoryManager("data_buffer", 1000)
one.create()
one.write_data(b"mine")
print(one.place, flush=True)
sys.stdin.read()
"""


def test_s45_a_killed_makers_memory_is_gone_at_the_next_start() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAKER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:
        place = Path(maker.stdout.readline().strip())
        reader = SharedMemoryManager("data_buffer", 1000, place)
        assert reader.connect()
        assert place not in sweep(), "its owner lives"
        maker.kill()
    assert reader.read_data() == b"mine", "a reader does not lose what it has open"
    with Place():
        assert not place.exists()
    reader.cleanup()


def test_others_and_new_places_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("asyncworker.share.place.root", lambda: tmp_path)
    (tmp_path / ".asyncworker-new").mkdir()
    (tmp_path / "asyncworker-orphan").mkdir()
    (tmp_path / "asyncworker-file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "asyncworker-link").symlink_to(tmp_path / "other")
    assert sweep() == [tmp_path / "asyncworker-orphan"]
    os.utime(tmp_path / ".asyncworker-new", (0, 0))
    assert sweep() == [tmp_path / ".asyncworker-new"]
    assert {path.name for path in tmp_path.iterdir()} == {"asyncworker-file", "other", "asyncworker-link"}
    assert not sweep()


def is_whole(data: bytes) -> bool:
    return len(data) > 4 and struct.unpack("<I", data[-4:])[0] == zlib.crc32(data[:-4])


def writer(shared: SharedMemoryManager, count: int) -> subprocess.Popen[str]:
    code = """
import sys
from pathlib import Path
from asyncworker.share.memory import SharedMemoryManager
from tests.unit.share.test_memory import SIZE, filled
one = SharedMemoryManager("data_buffer", SIZE, Path(sys.argv[1]))
assert one.connect()
count, number = int(sys.argv[2]), 0
values = [filled(n) for n in range(50)]
print("ready", flush=True)
while number != count:
    one.write_data(values[number % 50])
    number += 1
"""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(shared.place), str(count)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def filled(number: int) -> bytes:
    """Return as much as always, that tells whether it is of one piece."""
    body = random.Random(number).randbytes(3000)
    return body + struct.pack("<I", zlib.crc32(body))


def never_torn(shared: SharedMemoryManager, writes: int) -> None:
    """Let two processes write so often, and read meanwhile."""
    shared.write_data(filled(0))
    writers = [writer(shared, writes) for _ in range(2)]
    for one in writers:
        assert one.stdout.readline() == "ready\n"
    reads = 0
    while any(one.poll() is None for one in writers):
        assert is_whole(shared.read_data())
        reads += 1
    for one in writers:
        with one:
            assert one.wait() == 0
    assert reads > 100
    version = shared._newest(shared._mapped())[1]
    assert version == 2 * writes + 1, "no write was lost"


def test_s44_two_writers_and_no_torn_read(shared: SharedMemoryManager) -> None:
    never_torn(shared, 5_000)


@pytest.mark.long
def test_s44_two_writers_and_no_torn_read_in_a_hundred_thousand(shared: SharedMemoryManager) -> None:
    never_torn(shared, 100_000)


def test_s46_a_writer_killed_at_any_moment_leaves_the_old_or_the_new(shared: SharedMemoryManager) -> None:
    shared.write_data(filled(0))
    draw = random.Random(5)
    for _ in range(4):
        with writer(shared, -1) as one:
            assert one.stdout.readline() == "ready\n"
            for _ in range(draw.randrange(1, 200)):
                assert is_whole(shared.read_data())
            one.send_signal(signal.SIGKILL)
            one.wait()
        assert is_whole(shared.read_data())
        shared.write_data(filled(1))  # the lock of the dead is free


def test_s46_each_step_of_a_write_may_be_the_last(shared: SharedMemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a write after each of the changes that it makes to the memory."""

    class Dying:
        def __init__(self, real: object, steps: int) -> None:
            self.real, self.steps = real, steps

        def __getitem__(self, key: object) -> object:
            return self.real[key]  # type: ignore[index]

        def __setitem__(self, key: object, value: object) -> None:
            if not self.steps:
                raise KeyboardInterrupt
            self.steps -= 1
            self.real[key] = value  # type: ignore[index]

        def __buffer__(self, flags: int) -> memoryview:
            return memoryview(self.real)  # type: ignore[arg-type]

        def __len__(self) -> int:
            return len(self.real)  # type: ignore[arg-type]

    real = shared._mapped()
    monkeypatch.setattr(module, "memoryview", lambda one: memoryview(getattr(one, "real", one)), raising=False)
    for steps in range(10):
        shared.write_data(filled(1))
        try:
            shared._replace(Dying(real, steps), memoryview(filled(2)), 0)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            assert shared.read_data() == filled(1)
        else:
            assert shared.read_data() == filled(2)
            assert steps >= 3
            return
    raise AssertionError("a write has no end")


def test_s46_corrupt_data_are_an_error_and_not_nothing(shared: SharedMemoryManager) -> None:
    shared.write_data(b"hello")
    memory = shared._mapped()
    memory[64] ^= 0xFF
    with pytest.raises(DecodeError, match="corrupt"):
        shared.read_data()
    shared.write_data(b"hello")
    assert shared.read_data() == b"hello"
    for half in (0, len(memory) // 2):
        memory[half : half + 8] = b"nonsense"
    with pytest.raises(DecodeError, match="corrupt"):
        shared.read_data()


def test_a_writer_that_stands_still_is_not_waited_for_for_ever(
    shared: SharedMemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    monkeypatch.setattr(module, "_locked", lambda _: False)
    with pytest.raises(TimeoutError, match="another writer"):
        shared.write_data(b"x")
    assert shared.read_data() == b"", "who reads waits for nobody"


def test_threads_of_one_process_take_turns(shared: SharedMemoryManager) -> None:
    shared.write_data(filled(0))

    def write(number: int) -> None:
        for _ in range(200):
            shared.write_data(filled(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert is_whole(shared.read_data())
    assert shared._newest(shared._mapped())[1] == 601


def test_there_must_be_room_for_all_of_it() -> None:
    with pytest.raises(OSError):
        SharedMemoryManager("huge", 2**50).create()
    assert not sweep()
