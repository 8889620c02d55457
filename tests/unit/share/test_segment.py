"""Freight arrives as what it was, and a segment that is none is refused."""

from __future__ import annotations

import array
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from asyncworker.errors import BadParameters, DecodeError
from asyncworker.share.segment import WORTH, Freight, load, unload

BIG = os.urandom(WORTH)


def there_and_back(*values: object) -> list[object]:
    rest, freight, segment = load(values)
    return unload(rest, msgspec.msgpack.decode(msgspec.msgpack.encode(freight), type=list[Freight]), segment)


def test_values_keep_their_places_and_types() -> None:
    numbers = array.array("d", range(7))
    small, big, own, view, table = there_and_back(1, BIG, bytearray(b"own"), memoryview(b"view"), numbers)
    assert small == 1
    assert (type(big), big) == (bytes, BIG)
    assert (type(own), own) == (bytearray, b"own")
    assert (type(view), bytes(view)) == (memoryview, b"view")
    assert (table.format, table.tolist(), table.readonly) == ("d", numbers.tolist(), True)


def test_shapes_survive_and_gaps_are_closed() -> None:
    grid = memoryview(array.array("i", range(24))).cast("B").cast("i", (2, 3, 4))
    (again,) = there_and_back(grid)
    assert (again.shape, again.tolist()) == ((2, 3, 4), grid.tolist())
    (gaps,) = there_and_back(memoryview(b"abcdef")[::2])
    assert bytes(gaps) == b"ace"
    assert bytes(there_and_back(memoryview(b""))[0]) == b""


def test_small_bytes_are_no_freight() -> None:
    assert load([b"x", "y" * WORTH, None, 3]) == ([b"x", "y" * WORTH, None, 3], [], -1)


def test_a_view_keeps_the_memory_when_all_else_is_gone() -> None:
    (view,) = there_and_back(memoryview(BIG))
    assert bytes(view) == BIG
    with pytest.raises(TypeError):
        view[0] = 1


def test_what_has_no_plain_format_is_refused() -> None:
    class Pair(ctypes.Structure):
        _fields_ = (("a", ctypes.c_int), ("b", ctypes.c_double))

    with pytest.raises(BadParameters, match="cannot travel"):
        load([Pair()])


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory without a name here")
def test_nobody_can_shorten_or_change_a_sealed_segment() -> None:
    _, _, segment = load([BIG])
    for change in (lambda: os.ftruncate(segment, 1), lambda: os.pwrite(segment, b"x", 100)):
        with pytest.raises(OSError):
            change()
    os.close(segment)


def test_s45_a_file_is_private_and_goes_when_it_cannot_be_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, freight, segment = load([BIG], tmp_path / "one")
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o600
    assert unload([None], freight, segment) == [BIG]

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        load([BIG], tmp_path / "two")
    assert not (tmp_path / "two").exists()


def header_of(descriptor: int, at: int, byte: bytes) -> None:
    os.pwrite(descriptor, byte, at)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fd: os.ftruncate(fd, 10),
        lambda fd: os.ftruncate(fd, 0),
        lambda fd: os.ftruncate(fd, 10**6),
        lambda fd: header_of(fd, 0, b"X"),
        lambda fd: header_of(fd, 8, b"\xff"),
        lambda fd: header_of(fd, 17, b"\xff"),
    ],
)
def test_e17_a_corrupt_header_is_refused(tmp_path: Path, spoil: Callable[[int], None]) -> None:
    rest, freight, segment = load([BIG], tmp_path / "one")
    spoil(segment)
    with pytest.raises(DecodeError, match="no segment"):
        unload(rest, freight, segment)


@pytest.mark.parametrize(
    "wrong",
    [
        {"place": 1},
        {"place": -1},
        {"start": 0},
        {"start": 10**9},
        {"bytes_": -1},
        {"bytes_": 10**9},
        {"kind": "memoryview", "format": "Q", "shape": (3, 3)},
        {"kind": "memoryview", "format": "?!", "shape": (WORTH,)},
    ],
)
def test_freight_that_does_not_lie_in_its_segment_is_refused(wrong: dict[str, object]) -> None:
    rest, (freight,), segment = load([BIG])
    with pytest.raises(DecodeError):
        unload(rest, [msgspec.structs.replace(freight, **wrong)], segment)


def test_freight_without_a_segment_is_refused() -> None:
    with pytest.raises(DecodeError, match="none came"):
        unload([None], [Freight(0, 64, 3, "bytes")], -1)


def test_no_descriptor_is_left() -> None:
    before = psutil.Process().num_fds()
    for _ in range(20):
        there_and_back(BIG)
    assert psutil.Process().num_fds() == before
