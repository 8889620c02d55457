"""Random histories on the raw functions, against a model: whatever happens, each job is in one place and ends once.

``ASYNCWORKER_MODEL_EXAMPLES=2000 pytest …`` searches longer.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asyncworker.queue.job import parent_of
from tests.support.redis_script import LIBRARY, Raw, Script

EXAMPLES = int(os.environ.get("ASYNCWORKER_MODEL_EXAMPLES", "40"))
QUEUES = ("p", "q")
LEVELS = (0, 5)
BACK = {"r": 3, "z": 1, "p": 2, "u": 0}
TTL = 10**6
MOST = 2


@dataclass
class Parent:
    """What the broker must count of a parent's children."""

    total: int = 0
    done: int = 0
    failed: int = 0
    units: int = 0
    sealed: int = 0
    state: str = "open"
    records: dict[str, bytes] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    url: ClassVar[str]
    raw: ClassVar[Raw]

    @initialize()
    def begin(self) -> None:
        self.script = Script(self.url, self.raw, LIBRARY)
        self.lane = 0
        self.epochs = 0
        self.queue_of: dict[str, str] = {}
        self.live: set[str] = set()
        self.over: dict[str, bytes] = {}
        self.hands: dict[str, set[str]] = {}
        self.dead: dict[str, set[str]] = {}
        self.deliveries: Counter[str] = Counter()
        self.to_stop: set[str] = set()
        self.parents: dict[str, Parent] = {}
        self.ends: Counter[str] = Counter()
        self.awaits: dict[str, list[str]] = {}  # of each job that waits for others, those that are not over
        self.linked: set[str] = set()
        self.tolerant: set[str] = set()
        self.join()
        self.join()

    # -------------------------------------------------------------------------------- what producers do

    def _enter(self, *ids: str, queue: str) -> None:
        self.live.update(ids)
        self.queue_of.update(dict.fromkeys(ids, queue))

    def _twice(self, again: bool) -> None:
        if again:
            before = self.script.hash("c")
            job = self.script.job()
            assert self.script.send(job, seq=self.script._lane) == [1, b""], "a repeat is answered"
            if self.script._lane > 1:
                newest = self.script._lane
                assert self.script.send(job, seq=newest - 1) == [-4]
                self.script._lane = newest
            assert self.script.hash("c") == before

    @rule(queue=st.sampled_from(QUEUES), level=st.sampled_from(LEVELS), count=st.integers(1, 5), again=st.booleans())
    def put(self, queue: str, level: int, count: int, again: bool) -> None:
        self._enter(*self.script.put(count=count, queue=queue, priority=level), queue=queue)
        self._twice(again)

    @rule(queue=st.sampled_from(QUEUES), delay=st.integers(1, 9), again=st.booleans())
    def put_later(self, queue: str, delay: int, again: bool) -> None:
        self._enter(*self.script.put(self.script.job(queue=queue, delay_s=delay / 1000)), queue=queue)
        self._twice(again)

    @precondition(lambda self: self.queue_of)
    @rule(data=st.data())
    def put_again(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.queue_of)))
        parent = parent_of(id)
        if parent is None or parent in self.live:
            known = id in self.live or id in self.over or (parent and id in self.parents[parent].records)
            expected = b"0k" if known else b"0c"
            assert self.script.send(self.script.job(id)) == [1, expected]

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), queue=st.sampled_from(QUEUES), children=st.integers(1, 3))
    def put_parent(self, data: st.DataObject, queue: str, children: int) -> None:
        holder = data.draw(st.sampled_from(sorted(self.hands)))
        (id,) = self.script.put(self.script.job(queue=queue, hold=holder))
        self._enter(id, queue=queue)
        self.hands[holder].add(id)
        self.parents[id] = Parent()
        for _ in range(children):
            self._child(id, queue)

    @precondition(lambda self: self.parents)
    @rule(data=st.data(), queue=st.sampled_from(QUEUES))
    def put_child(self, data: st.DataObject, queue: str) -> None:
        self._child(data.draw(st.sampled_from(sorted(self.parents))), queue)

    def _child(self, parent: str, queue: str) -> None:
        family = self.parents[parent]
        id = f"{parent}.{family.total}"
        refused = parent not in self.live or family.state == "over"
        assert self.script.send(self.script.job(id, queue)) == [1, b"0c" if refused else b""]
        if not refused:
            self._enter(id, queue=queue)
            family.total += 1

    @precondition(lambda self: any(parent_of(id) is None for id in self.queue_of))
    @rule(data=st.data(), queue=st.sampled_from(QUEUES), tolerant=st.booleans())
    def put_after(self, data: st.DataObject, queue: str, tolerant: bool) -> None:
        known = sorted(id for id in self.queue_of if parent_of(id) is None)
        formers = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        id = self.script.after(*formers, queue=queue, **({"allow_failure": True} if tolerant else {}))
        self._enter(id, queue=queue)
        self.linked.add(id)
        if tolerant:
            self.tolerant.add(id)
        self.awaits[id] = list(formers)
        for former in formers:
            if former in self.over:
                self._hear(id, former, self.over[former][:1].decode())

    def _hear(self, id: str, former: str, letter: str) -> None:
        """Let a job that waits in the model know how one ended."""
        left = self.awaits.get(id, [])
        if former not in left:
            return
        left.remove(former)
        if letter != "s" and id not in self.tolerant:
            self._end(id, "f", b"?")
        elif not left:
            del self.awaits[id]

    # -------------------------------------------------------------------------------- what workers do

    def _end(self, id: str, letter: str, record: bytes = b"", units: int = 0) -> None:
        """Let a job be over in the model, with all that follows from it."""
        self.live.remove(id)
        self.awaits.pop(id, None)
        self.ends[f"{self.queue_of[id]}:{letter}"] += 1
        parent = parent_of(id)
        if parent is None:
            self.over[id] = letter.encode() + record
            for follower in list(self.awaits):
                self._hear(follower, id, letter)
        elif parent in self.live:
            family = self.parents[parent]
            family.records[id] = letter.encode() + record
            family.done += 1
            family.failed += letter != "s"
            family.units += units if letter == "s" else 0
            self._release_if_over(parent)

    def _release_if_over(self, parent: str) -> None:
        family = self.parents[parent]
        if family.state != "over" and (family.failed or (family.state == "wait" and family.done == family.total)):
            family.state = "over"
            for held in self.hands.values():
                held.discard(parent)

    def _apply(self, epoch: str, id: str, op: str) -> None:
        if id not in self.hands[epoch]:
            return
        if op == "v":
            if parent_of(id) in self.live:
                self.parents[parent_of(id) or ""].records[f"{id}:9"] = b"schunk"
            return
        self.hands[epoch].remove(id)
        if op == "b":
            self.parents[id].sealed = 1
            self.parents[id].state = "wait"
            self._release_if_over(id)
        elif op in BACK and id not in self.to_stop:
            if op == "u":
                self._give_back(id)
        else:
            ended = "c" if op in BACK else op
            self._end(id, ended, b"" if op in BACK else b"record", 7)

    def _give_back(self, id: str) -> None:
        if id in self.parents:
            self.parents[id].state = "over"

    def _settle(
        self, data: st.DataObject, epoch: str, ops: str = "ssssfcerzpu"
    ) -> tuple[list[tuple[Any, ...]], list[tuple[str, bytes]]]:
        """Draw what becomes of some held jobs; returns slow items and a run of plain successes."""
        slow: list[tuple[Any, ...]] = []
        run: list[tuple[str, bytes]] = []
        for id in sorted(self.hands[epoch]):
            family = self.parents.get(id)
            if family and family.state == "open":
                op = data.draw(st.sampled_from("bbbu....."))
            else:
                op = data.draw(st.sampled_from(ops + "v" * (parent_of(id) is not None) + "." * 3))
            if op == ".":
                continue
            plain = family is None and parent_of(id) is None and id not in self.linked
            if op == "s" and plain and self.queue_of[id] == "q":
                run.append((id, b"record"))
            else:
                number = 9 if op == "v" else 7 if op == "s" and parent_of(id) else BACK.get(op, TTL)
                slow.append((id, op, number, b"chunk" if op == "v" else b"record"))
        return slow, run

    @precondition(lambda self: self.hands)
    @rule(
        data=st.data(),
        want=st.integers(0, 6),
        fault=st.sampled_from(["", "", "lost", "late", "gap"]),
        lowest=st.booleans(),
        idle=st.booleans(),
        asleep=st.sampled_from([0, 2]),
    )
    def work(self, data: st.DataObject, want: int, fault: str, lowest: bool, idle: bool, asleep: bool) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.hands)))
        slow, run = self._settle(data, epoch)
        if strangers := sorted(self.live - self.hands[epoch]):
            slow.append((data.draw(st.sampled_from(strangers)), data.draw(st.sampled_from("sfcru")), TTL, b"mine?"))
            run.append((data.draw(st.sampled_from(strangers)), b"mine?"))
        more: dict[str, Any] = {"runs": [("q", TTL, run)] if run else [], "queues": QUEUES}
        more |= {"lowest": lowest, "idle": idle, "asleep": asleep}
        if fault == "gap":
            more["seq"] = self.script._seq[epoch] + 2
        answer = self.script.step(epoch, want, *slow, **more)
        assert answer[0] == (-3 if fault == "gap" else 1)
        for item in run:
            self._apply(epoch, item[0], "s")
        for item in slow:
            self._apply(epoch, item[0], item[1])
        if fault != "gap":
            self._got(epoch, answer, want)
        seq = self.script._seq[epoch]
        if fault == "lost":
            answer = self.script.step(epoch, want, *slow, **(more | {"seq": seq}))
            assert answer[0] == -2
        if fault in {"lost", "gap"}:
            assert set(answer[3]) == self.hands[epoch]
            assert None not in answer[4]
        if fault == "late" and seq > 1:
            assert self.script.step(epoch, want, *slow, **(more | {"seq": seq - 1})) == [-4]
            self.script._seq[epoch] = seq

    @rule(data=st.data())
    def busy(self, data: st.DataObject) -> None:
        for epoch in sorted(self.hands):
            slow, run = self._settle(data, epoch, "sssssssr")
            answer = self.script.step(epoch, 4, *slow, runs=[("q", TTL, run)] if run else [], queues=QUEUES)
            for id, op in [*((id, "s") for id, _ in run), *((item[0], item[1]) for item in slow)]:
                self._apply(epoch, id, op)
            self._got(epoch, answer, 4)

    def _got(self, epoch: str, answer: list[Any], want: int) -> None:
        ids = answer[3]
        assert len(ids) == len(set(ids)) <= want
        assert len(answer[4]) == len(ids)
        for id in ids:
            assert id in self.live
            assert not any(id in held for held in self.hands.values())
            assert not self._is_useless(id)
        self.hands[epoch].update(ids)

    def _is_useless(self, id: str) -> bool:
        """Return whether this is a child that waits although its parent needs it no more."""
        parent = parent_of(id)
        return parent is not None and (parent not in self.live or self.parents[parent].state == "over")

    # -------------------------------------------------------------------------------- what happens to workers

    @precondition(lambda self: len(self.hands) < 4)
    @rule()
    def join(self) -> None:
        self.epochs += 1
        self.hands[self.script.join(f"e{self.epochs}", QUEUES)] = set()

    @rule()
    def tick(self) -> None:
        self.script.now += 2

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), stale=st.booleans(), crashed=st.booleans())
    def reap(self, data: st.DataObject, stale: bool, crashed: bool) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.hands)))
        seen = self.script.hash("b")[epoch]
        if stale:
            assert self.script.fcall("beat", epoch, 1)[0] == 1
            assert self.script.reap(epoch, seen, crashed=crashed) == -1
            return
        held = self.hands[epoch]
        assert self.script.reap(epoch, seen, crashed=crashed, most=MOST) == len(held)
        assert self.script.reap(epoch, crashed=crashed) == -1
        self.dead[epoch] = set(held)
        for id in sorted(held, reverse=True):
            if id not in held:
                continue  # a parent whose child just failed
            held.remove(id)
            if id in self.to_stop:
                self._end(id, "c")
                continue
            self.deliveries[id] += crashed
            if crashed and self.deliveries[id] >= MOST:
                self._end(id, "f", b"?")
            else:
                self._give_back(id)
        del self.hands[epoch]

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def zombie(self, data: st.DataObject) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.dead)))
        before = self.script.hash("c"), self.script.hash("e"), self.script.hash("x")
        settled = [(id, op, 1, b"zombie") for id, op in zip(sorted(self.dead[epoch]), "sfcruzb" * 9, strict=False)]
        run = [("q", TTL, [(id, b"zombie") for id in self.dead[epoch]])] if self.dead[epoch] else []
        assert self.script.step(epoch, 5, *settled, runs=run) == [-1]
        assert self.script.fcall("beat", epoch, 1) == [-1]
        assert (self.script.hash("c"), self.script.hash("e"), self.script.hash("x")) == before

    # -------------------------------------------------------------------------------- what others do

    @precondition(lambda self: self.queue_of)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.live) or sorted(self.queue_of)))
        state = self.script.state(id)
        holder = next((epoch for epoch, held in self.hands.items() if id in held), None)
        assert self.script.cancel(id) == (state or None)
        assert (state == "running") == (holder is not None)
        if id not in self.live:
            return
        family = self.parents.get(id)
        if holder and not (family and family.state == "open"):
            self.to_stop.add(id)
            return
        if holder:
            self.hands[holder].remove(id)
        self._end(id, "c")

    @precondition(lambda self: self.queue_of)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.queue_of)))
        (said,) = self.script.fcall("wait", "inbox", id)
        if id in self.live and not self._is_useless(id):
            assert said == b""

    # -------------------------------------------------------------------------------- what holds at any time

    @invariant()
    def conserve(self) -> None:
        script = self.script
        bodies = set(script.hash("e"))
        dropped = self.live - bodies
        assert all(self._is_useless(id) for id in dropped), "lost"
        for id in dropped:
            self.live.remove(id)
            self.ends[f"{self.queue_of[id]}:c"] += 1
        assert bodies == self.live, "what is over is over"
        places: Counter[str] = Counter()
        gone: Counter[str] = Counter()
        for queue in QUEUES:
            for level in LEVELS:
                ids = script.list(queue, level)
                places.update(id for id in ids if id in bodies)
                gone[f"{queue}:g"] += sum(id not in bodies for id in ids)
            places.update(id.decode()[1:] for id in script.redis("ZRANGE", f"d:{queue}", 0, -1))
        for epoch, held in self.hands.items():
            assert script.held(epoch) == held
            places.update(held)
        places.update(list(self.awaits))
        places.update(id for id, family in self.parents.items() if id in self.live and family.state == "wait")
        assert places == Counter(bodies), "each in one place"
        assert not script.redis("EXISTS", "p"), script.hash("p")
        assert set(script.hash("x")) <= bodies, "notes of the living only"
        counted = {field: int(count) for field, count in script.hash("c").items()}
        expected = Counter({f"{queue}:n": 0 for queue in QUEUES}) + self.ends + gone
        for queue in QUEUES:
            for letter in "sfceg":
                assert counted.get(f"{queue}:{letter}", 0) == expected[f"{queue}:{letter}"], (queue, letter)
            entered = sum(1 for name in self.queue_of.values() if name == queue)
            assert counted.get(f"{queue}:n", 0) == entered

    @invariant()
    def remember(self) -> None:
        ids = sorted(self.over)
        for id, said in zip(ids, self.script.look(*ids), strict=True):
            expected = self.over[id]
            assert said is not None
            assert said == expected or (expected == b"f?" and said[:2] == b"f\x9a"), "one end, once"
        for id, family in self.parents.items():
            found = self.script.find(id)
            if id not in self.live:
                assert len(found) == 4
                stays = self.over.get(id, b"")[:1] == b"f"  # for a day, by whoever opens it anew
                assert stays or not self.script.redis("EXISTS", f"o:{id}")
                continue
            numbers = (family.total, family.done, family.failed, family.units, family.sealed)
            assert found[5] == [*(b"%d" % number for number in numbers), family.state.encode()]
            kept = {f"{id}.{part}": record for part, record in self.script.hash(f"o:{id}").items()}
            assert kept.keys() == family.records.keys()
            assert all(kept[name][:1] == record[:1] for name, record in family.records.items())

    def teardown(self) -> None:
        if not hasattr(self, "script"):
            return
        for epoch in list(self.hands):
            self.script.reap(epoch, crashed=False)
        self.script.join("last", QUEUES)
        for _ in range(200):
            self.script.now += 1000
            ids = self.script.claim("last", 50, queues=QUEUES)
            self.script.step("last", 0, *((id, "s", 1, b"") for id in ids))
            if not self.script.redis("EXISTS", "e"):
                break
        left = set(self.script.hash("e"))
        waiting = {id for id in left if id in self.parents and self.parents[id].state == "wait"}
        assert left == waiting == set(), ("stuck", left)
        while any(self.script.list(queue, level) for queue in QUEUES for level in LEVELS):
            assert self.script.claim("last", 50, queues=QUEUES) == []
        kinds = {key.partition(":")[0] for key in self.script.names()}
        assert kinds <= {"a", "b", "c", "f", "h", "i", "j", "k", "o", "w", "z"}, kinds
        assert kinds & {"h", "j"} == set() or "z" in kinds, "only dead letters know for whom they waited"


@pytest.fixture(scope="module")
def raw(redis_url: str) -> Iterator[Raw]:
    raw = Raw(redis_url)
    raw.load()
    yield raw
    raw.close()


@pytest.mark.timeout(0)
def test_f25_whatever_happens_each_job_is_in_one_place_and_ends_once(redis_url: str, raw: Raw):
    play(redis_url, raw, EXAMPLES)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_f25_six_hundred_histories(redis_url: str, raw: Raw):
    play(redis_url, raw, 600)


def play(url: str, raw: Raw, examples: int) -> None:
    machine = type("Machine", (Machine,), {"url": url, "raw": raw})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
