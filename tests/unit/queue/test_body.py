"""Bodies and notes: what was packed comes back, and any bytes at all give an answer."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import BadParameters, DecodeError, JobTooBig
from asyncworker.queue.body import NOTHING, Note, delivery, pack_body, read_note, split_body
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES
from asyncworker.queue.job import Delivery, Job

ID = "0" * 26
names = st.text(min_size=1, max_size=60).filter(lambda name: len(name.encode()) < 256)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
options = st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=3), max_size=4)


@given(names, st.integers(0, 9), options, st.binary(max_size=300), st.sampled_from(["", "epoch"]))
def test_bodies_come_back(queue: str, priority: int, some: dict[str, object], payload: bytes, hold: str):
    body = pack_body(Job(ID, queue, payload, priority, some, hold=hold))
    flags = bool(some) + 2 * bool(hold)
    assert split_body(body) == (queue, priority, flags, some, payload)
    expected = Delivery(ID, queue, payload, priority, some, plain=not hold)
    assert delivery(ID, body, None) == expected
    assert delivery(ID + ".7", body, None) == msgspec.structs.replace(expected, id=ID + ".7", plain=False)


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: b"1\0" + rest), st.none() | st.binary())
def test_any_bytes_give_a_delivery(body: bytes, note: bytes | None):
    assert delivery(ID, body, note).id == ID
    try:
        split_body(body)
    except DecodeError:
        assert delivery(ID, body, note) == Delivery(ID, "", b"", plain=False)


@pytest.mark.parametrize(
    "body", [b"", b"1", b"1\0005", b"2\0005\1q", b"1\0005\1\xff", b"1\0015\1q\0\1\x01x", b"1\0015\1q"]
)
def test_what_is_no_body(body: bytes):
    with pytest.raises(DecodeError):
        split_body(body)
    assert delivery(ID, body, None).payload == b""


def test_a_body_that_is_cut_within_its_queues_name():
    assert delivery(ID, b"1\0005\7q", None).queue == "q", "no more than the worker's own payload check will find"


def test_flags_of_options():
    for some, flags, plain in (({"timeout": 1}, 1, True), ({"expires": 1}, 5, True), ({"unique": "k"}, 9, False)):
        body = pack_body(Job(ID, "q", b"x", options=some))
        assert split_body(body)[2] == flags
        assert delivery(ID, body, None).plain is plain
    assert split_body(pack_body(Job(ID, "q", b"x", options={"unique": None})))[2] == 1


def test_notes():
    note = msgspec.msgpack.encode({"a": 2, "d": 1, "p": 3, "c": 1, "e": "why", "w": ["inbox"]})
    assert read_note(note) == Note(2, 1, 3, 1, "why")
    made = delivery(ID, pack_body(Job(ID, "q", b"x")), note)
    assert (made.attempt, made.deliveries, made.put_back, made.cancel_asked, made.plain) == (3, 1, 3, True, True)


@given(st.none() | st.binary())
def test_any_bytes_give_a_note(note: bytes | None):
    assert isinstance(read_note(note), Note)
    assert read_note(None) is NOTHING


@pytest.mark.parametrize(
    "more", [{"queue": ""}, {"queue": "q" * 256}, {"priority": -1}, {"priority": 10}, {"options": {"x": "y" * 65536}}]
)
def test_what_does_not_fit(more: dict[str, object]):
    with pytest.raises(BadParameters):
        pack_body(Job(**{"id": ID, "queue": "q", "payload": b""} | more))


def test_the_size_of_a_job():
    pack_body(Job(ID, "q", bytes(MAX_PAYLOAD_BYTES)))
    with pytest.raises(JobTooBig, match="16777217"):
        pack_body(Job(ID, "q", bytes(MAX_PAYLOAD_BYTES + 1)))
