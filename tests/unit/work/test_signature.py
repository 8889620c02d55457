"""What a function can be called with, and as what its arguments arrive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import wraps
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import BadParameters
from asyncworker.work.signature import Signature


class Hidden:
    """A type that msgspec does not know."""


class Given:
    """Handed in where the function runs."""


class Colour(Enum):
    RED = "red"


@dataclass
class Order:
    id: int
    lines: list[str]


class Place(msgspec.Struct):
    lat: float


def plain(a: int, b: str = "x") -> None: ...
def names_only(a: int, *, b: str) -> None: ...
def places_only(a: int, /, b: int = 0) -> None: ...
def gathers(a: int, *rest: int, **more: int) -> None: ...
def unsaid(a, b=None): ...
def hidden(a: Hidden, b: Hidden | int, c: list[int]) -> None: ...
def nothing() -> None: ...
def first(ctx: Given, a: int, b: int = 0) -> None: ...
def optional(a: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 - how older code says it
def rich(order: Order, at: datetime, place: Place, price: Decimal, key: UUID, colour: Colour) -> None: ...
def bounded(n: Annotated[int, msgspec.Meta(ge=1)]) -> None: ...


class Caller:
    async def __call__(self, spec: dict[str, Any], ctx: Given) -> None: ...


FITS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (plain, (1,), {}),
    (plain, (1, "a"), {}),
    (plain, (1,), {"b": "a"}),
    (plain, (), {"a": 1, "b": "a"}),
    (names_only, (1,), {"b": "a"}),
    (places_only, (1,), {"b": 2}),
    (gathers, (1, 2, "3"), {"z": 1}),
    (unsaid, (object(),), {}),
    (hidden, (1, "2", [3]), {}),
    (nothing, (), {}),
    (first, (1, 2), {}),
    (optional, (None,), {}),
    (Caller(), ({"a": 1},), {}),
    (print, (1, 2, 3), {"sep": ""}),
    (bounded, (1,), {}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), FITS)
def test_what_a_function_takes_passes_unchanged(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert Signature(function, Given).check(args, kwargs) == (args, kwargs)


WRONG: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (plain, (), {}, "'a' is missing"),
    (plain, (), {"b": "x"}, "'a' is missing"),
    (plain, (1, "a", 2), {}, "room for 2 arguments by position, not for 3"),
    (plain, (1, "a", 2), {"b": "x"}, "room for 2 arguments by position, not for 3"),
    (plain, (1,), {"c": 1}, "no argument 'c'"),
    (plain, (1,), {"a": 1}, "'a' is given twice"),
    (plain, ("2",), {}, "'a': Expected `int`, got `str`"),
    (plain, (1,), {"b": 2}, "'b': Expected `str`, got `int`"),
    (plain, (True,), {}, "'a': Expected `int`, got `bool`"),
    (names_only, (1,), {}, "'b' is missing"),
    (names_only, (1, "b"), {}, "room for 1"),
    (places_only, (), {"a": 1}, "cannot be given by name"),
    (gathers, (), {}, "'a' is missing"),
    (nothing, (1,), {}, "room for 0"),
    (hidden, (1, 2, ["3"]), {}, r"'c\[0\]': Expected `int`, got `str`"),
    (first, (), {}, "'a' is missing"),
    (first, (1,), {"ctx": 1}, "no argument 'ctx'"),
    (bounded, (0,), {}, "'n': Expected `int` >= 1"),
]


@pytest.mark.parametrize(("function", "args", "kwargs", "told"), WRONG)
def test_what_it_cannot_take_is_named(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], told: str) -> None:
    with pytest.raises(BadParameters, match=told):
        Signature(function, Given).check(args, kwargs)


def test_arguments_arrive_as_what_their_annotations_say() -> None:
    at, key = datetime(2026, 1, 2, tzinfo=UTC), UUID(int=7)
    there = (Order(1, ["a"]), at, Place(1.5), Decimal("1.10"), key, Colour.RED)
    signature = Signature(rich)
    assert signature.check(there, {})[0] is there
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(there))
    assert signature.convert(travelled, {}) == (there, {})
    assert signature.convert(
        travelled[:1], dict(zip(["at", "place", "price", "key", "colour"], travelled[1:], strict=True))
    ) == (
        there[:1],
        {"at": at, "place": Place(1.5), "price": Decimal("1.10"), "key": key, "colour": Colour.RED},
    )


def test_producers_that_know_only_json_say_dates_and_bytes_as_texts() -> None:
    def function(data: bytes, at: datetime) -> None: ...

    there = ["YWJj", "2026-01-02T00:00:00Z"]
    assert Signature(function).check(tuple(there), {})
    assert Signature(function).convert(there, {}) == ((b"abc", datetime(2026, 1, 2, tzinfo=UTC)), {})


@pytest.mark.parametrize(
    ("given_there", "called"), [(([1], {}), ((), {"a": 1})), (([1], {"b": 2}), ((), {"a": 1, "b": 2}))]
)
def test_what_is_handed_in_here_may_stand_first(given_there: Any, called: Any) -> None:
    signature = Signature(first, Given)
    assert signature.given_name == "ctx"
    assert signature.convert(*given_there) == called


def test_annotations_that_cannot_be_resolved_are_not_looked_at_and_the_others_are() -> None:
    class Local: ...

    def function(a: Local, n: int) -> None: ...

    signature = Signature(function)
    assert signature.check(("anything", 1), {})
    with pytest.raises(BadParameters, match="'n'"):
        signature.check(("anything", "1"), {})


def test_a_wrapped_function_keeps_its_signature() -> None:
    @wraps(plain)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        plain(*args, **kwargs)

    with pytest.raises(BadParameters, match="'a'"):
        Signature(wrapper).check(("1",), {})


VALUES = st.one_of(st.integers(-5, 5), st.text(max_size=2), st.booleans(), st.none())


@given(args=st.lists(VALUES, max_size=4), kwargs=st.dictionaries(st.sampled_from("abcz"), VALUES, max_size=3))
def test_shapes_are_judged_as_python_does(args: list[Any], kwargs: dict[str, Any]) -> None:
    def function(a, b=1, *, c=2): ...

    try:
        function(*args, **kwargs)
    except TypeError:
        with pytest.raises(BadParameters):
            Signature(function).check(tuple(args), kwargs)
    else:
        assert Signature(function).convert(args, dict(kwargs)) == (tuple(args), kwargs)
