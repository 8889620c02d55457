"""Functions that tests run elsewhere: at the top of a module, where another process finds them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from asyncworker import Engine, Retry

engine = Engine()


@dataclass
class Point:
    x: int
    y: int = 0


class OwnError(Exception):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def add(a: int, b: int = 0) -> int:
    return a + b


def echo(value: Any) -> Any:
    return value


def fail(text: str) -> NoReturn:
    raise OwnError(text, 7)


def fail_at_key(key: str) -> NoReturn:
    raise KeyError(key)


def ask_again() -> NoReturn:
    raise Retry("later", delay=3.5)


def fail_with_an_object() -> NoReturn:
    raise ValueError(object)


def exit_python() -> NoReturn:
    sys.exit(3)


def give_an_object() -> object:
    return object()


def look_at(view: memoryview) -> dict[str, Any]:
    """Say what came, and from where: a view of a mapped file is not a copy."""
    held = view.obj
    while isinstance(held, memoryview):
        held = held.obj
    return {"format": view.format, "shape": view.shape, "sum": sum(view.cast("B")), "held": type(held).__name__}


def backwards(data: bytes) -> bytes:
    assert type(data) is bytes
    return data[::-1]


def table_of(count: int) -> memoryview:
    return memoryview(array("d", range(count)))


def move(point: Point, by: int) -> Point:
    assert type(point) is Point
    return Point(point.x + by, point.y)


def where() -> int:
    return os.getpid()


def drop_dead(how: str) -> NoReturn:
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_with(data: bytes) -> NoReturn:
    drop_dead("kill" if data else "exit")


def hang(mark: str, data: bytes = b"") -> NoReturn:
    """Say where, then never end."""
    Path(mark).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def meet(directory: str, count: int) -> int:
    """Return when *count* calls are under way at once."""
    (Path(directory) / f"{os.getpid()}-{threading.get_ident()}").touch()
    while len(list(Path(directory).iterdir())) < count:
        time.sleep(0.005)
    return count


@engine.task(executor="process")
def power(base: int, exponent: int = 2) -> int:
    return base**exponent


@engine.task(executor="process")
def weigh(data: memoryview, *, offset: bytes = b"") -> dict[str, Any]:
    return look_at(data) | {"offset": len(offset)}


@engine.task(executor="process", max_attempts=1, timeout=0.5)
def forever(mark: str) -> None:
    hang(mark)


@engine.task(executor="process", max_attempts=1)
def die() -> None:
    drop_dead("kill")
