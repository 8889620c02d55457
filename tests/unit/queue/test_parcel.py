"""Arguments and answers: nothing is lost, nothing overtakes, and what cannot be read does no harm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import BadParameters
from asyncworker.queue import parcel
from asyncworker.queue.body import pack_body
from asyncworker.queue.codec import Ids, pack
from asyncworker.queue.job import Found, Job, Op, Progress, Receipt, Record, Settled, State, WorkerCard

ID = "0" * 26
new_id = Ids()

jobs = st.builds(
    lambda child, **more: Job(id=new_id() + ".1" * child, payload=b"call", **more),
    child=st.booleans(),
    queue=st.sampled_from("ab"),
    priority=st.integers(4, 5),
    delay_s=st.sampled_from([0.0, 0.0, 1.5]),
    hold=st.sampled_from(["", "", "", "epoch"]),
)


def read(words: Sequence[Any]) -> Iterator[tuple[str, int, bool, str]]:
    """Yield queue, priority, whether it stands alone, and id of all that an ENQUEUE's arguments hold."""
    rest = list(words)
    while rest:
        queue, priority, count, *rest = rest
        taken = 5 if count == 0 else 2 * count
        for id in rest[:1] if count == 0 else rest[: 2 * count : 2]:
            yield queue, priority, count == 0, id
        rest = rest[taken:]


@given(st.lists(jobs, max_size=20))
def test_all_are_sent_and_none_overtakes(some: list[Job]):
    batch = [parcel.parcel(job) for job in some]
    words, order = parcel.runs(batch)
    sent = list(read(words))
    assert sorted(order) == list(range(len(some)))
    assert [id for *_, id in sent] == [some[number].id for number in order]
    for queue in "ab":
        for priority in (4, 5):
            of_level = [id for name, level, _, id in sent if (name, level) == (queue, priority)]
            assert of_level == [job.id for job in some if (job.queue, job.priority) == (queue, priority)]
    alone = {job.id for job in some if job.delay_s or job.hold or len(job.id) > 26}
    assert {id for _, _, single, id in sent if single} == alone


def test_neighbours_share_a_run():
    words, order = parcel.runs([parcel.parcel(Job(new_id(), queue, b"")) for queue in "ababa"])
    assert (words[2], len(words), order) == (3, 16, [0, 2, 4, 1, 3])


def test_receipts():
    assert parcel.receipts(b"", [1, 0]) == [Receipt.ACCEPTED] * 2
    assert parcel.receipts(b"0k,2c", [2, 0, 1]) == [Receipt.ACCEPTED, Receipt.CLOSED, Receipt.KNOWN]


@pytest.mark.parametrize("more", [{"delay_s": float("inf")}, {"at_s": float("nan")}, {"at_s": float("-inf")}])
def test_times_that_are_none(more: dict[str, float]):
    with pytest.raises(BadParameters, match="no time"):
        parcel.parcel(Job(ID, "q", b"", **more))


def test_settlements():
    settled = [
        Settled("a", Op.SUCCEEDED, "q", 60, b"A", plain=True),
        Settled("b", Op.RELEASE, "q"),
        Settled("c", Op.SUCCEEDED, "q", 60, b"C", plain=False),
        Settled("d", Op.SUCCEEDED, "p", 60, b"D", plain=True),
        Settled("e", Op.RETRY, "q", 5, b"\xff!", plain=True),
        Settled("f", Op.RELEASE, "q"),
        Settled("g", Op.SUCCEEDED, "q", 60, b"G", plain=True),
        Settled("h", Op.FAILED, "q", 9, b"\xff", plain=True),
    ]
    runs = [2, "q", 60, 2, "a", b"A", "g", b"G", "p", 60, 1, "d", b"D"]
    others = ["c", "s", 60, b"C", "e", "r", 5, "\ufffd!", "h", "f", 9, b"\xff"]
    assert parcel.settlements(settled) == [*runs, *others, "f", "u", 0, b"", "b", "u", 0, b""]
    assert parcel.settlements([]) == [0]


def test_what_is_claimed():
    body = pack_body(Job(ID, "q", b"call"))
    plain = parcel.claimed([1, 5, -1, [ID.encode()], [body], []])
    assert (plain.now_ms, plain.next_due_ms, plain.held) == (5, -1, None)
    assert [(one.id, one.attempt) for one in plain.deliveries] == [(ID, 1)]
    noted = parcel.claimed([-2, 5, -1, [ID.encode(), b"x"], [body, body], [msgspec.msgpack.encode({"a": 2}), None]])
    assert noted.held == {ID, "x"}
    assert [one.attempt for one in noted.deliveries] == [3, 1]


def test_what_is_found():
    body = pack_body(Job(ID, "q", b"call", 3))
    record = pack(Record(task="t", attempt=2, started_s=4.5, error_text="why"))
    children = [b"5", b"2", b"1", b"70", b"1", b"over"]
    nothing = [None] * 6
    assert parcel.found(ID, []) is None
    failed = Found(ID, State.FAILED, attempt=2, started_s=4.5, error="why", record=record)
    assert parcel.found(ID, [b"f", record, None, None]) == failed
    dead = msgspec.structs.replace(failed, queue="q", priority=3, deliveries=2, payload=b"call")
    assert parcel.found(ID, [b"f", record, body, b"2"]) == dead
    assert parcel.found(ID, [b"c", b"\xc1", None, None]) == Found(ID, State.CANCELLED, record=b"\xc1")
    running = Found(ID, State.RUNNING, "q", 3, attempt=1, started_s=2.5, payload=b"call")
    assert parcel.found(ID, [b"running", body, None, b"2500", None, nothing]) == running
    blocked = Found(
        ID,
        State.BLOCKED,
        "q",
        3,
        started_s=2.5,
        payload=b"call",
        children=Progress(5, 2, 1, 70, sealed=True, over=True),
    )
    assert parcel.found(ID, [b"blocked", body, None, b"2500", None, children]) == blocked
    note = msgspec.msgpack.encode({"a": 1, "d": 2, "e": "oops"})
    retrying = Found(ID, State.RETRYING, "q", 3, 1, 2, due_s=2.5, error="oops", payload=b"call")
    assert parcel.found(ID, [b"retrying", body, note, b"2500", None, nothing]) == retrying
    assert parcel.found(ID, [b"blocked", b"?", None, 0, b"broken \xff", nothing]) == Found(
        ID, State.BLOCKED, "", 0, error="broken \ufffd"
    )


def test_how_deep():
    card = WorkerCard("host", 1, ("q",), 5, 9.0, 1.5)
    born = ID.encode()
    answer = [
        5000,
        2,
        [b"e1", msgspec.msgpack.encode(card), 2],
        [[3, 1, [None, born], [b"7", None], [None, b"9"]], [0, 0, [born], [], [b"1", None]]],
    ]
    depth = parcel.depth(["q", "p"], answer)
    assert (depth.running, depth.workers, depth.held) == (2, {"e1": card}, {"e1": 2})
    q, p = depth.queues["q"], depth.queues["p"]
    assert (q.queued, q.scheduled, q.oldest_s, q.enqueued, q.succeeded) == (3, 1, 5.0, 7, 0)
    assert (p.queued, p.oldest_s) == (0, 0.0), "what is left in the list was cancelled"
    assert ((q.paused, q.most), (p.paused, p.most)) == ((False, 9), (True, None))
