"""What the functions of ``brokers/lua`` do about limits, rates and debounced calls; with those of `redis_scenarios`, all there are."""

from __future__ import annotations

from typing import Any

import msgspec

from asyncworker.queue.body import pack_body, pack_tail
from asyncworker.queue.job import Job
from asyncworker.queue.limit import Limit, Rate
from tests.support.redis_scenarios import SCENARIOS, scenario
from tests.support.redis_script import Ear, Script

__all__ = ["SCENARIOS"]


def limit(of: Limit, key: str | None = None) -> dict[str, Any]:
    return {"limit": [of.name or "t", *of.numbers, key]}


def rate(of: Rate, cost: float = 1.0, key: str | None = None) -> dict[str, Any]:
    return {"rate": [of.name or "t", *of.numbers, key, cost]}


ONE = limit(Limit(1))
TENTH = rate(Rate(10))


def regulate(s: Script, **numbers: list[float]) -> None:
    words = [word for name, some in numbers.items() for word in (name, msgspec.msgpack.encode(some))]
    assert s.fcall("regulate", *words) == 1


def line(s: Script, gate: str, queue: str = "q") -> list[tuple[str, int]]:
    said = s.redis("ZRANGE", f"q:{queue}:{gate}", 0, -1, "WITHSCORES")
    return [(id.decode(), int(rank)) for id, rank in zip(said[::2], said[1::2], strict=True)]


def permits(s: Script, gate: str) -> set[str]:
    return {id.decode() for id in s.redis("SMEMBERS", f"l:{gate}")}


def bells(s: Script, queue: str = "q") -> dict[str, int]:
    said = s.redis("ZRANGE", f"d:{queue}", 0, -1, "WITHSCORES")
    return {name.decode(): int(due) for name, due in zip(said[::2], said[1::2], strict=True)}


@scenario
def a_limited_job_takes_a_permit_and_gives_it_back(s: Script) -> None:
    s.join()
    first, second, third = s.put(count=3, options=ONE)
    (plain,) = s.put(count=1)
    assert s.claim("e1", 2) == [first, plain]
    assert permits(s, "lt") == {first}
    assert s.hash("v:lt") == {"q": b"0"}
    assert s.counts()["w"] == 2
    assert line(s, "lt") == [(second, 4), (third, 4)]
    assert s.redis("ZRANGE", "y:b", 0, -1) == [second.encode(), third.encode()]
    assert (s.state(first), s.state(second)) == ("running", "blocked")
    s.step("e1", 0, (first, "s", 0))
    assert permits(s, "lt") == set()
    assert line(s, "lt") == [(second, -1), (third, 4)]
    assert (s.state(second), s.state(third), s.counts()["w"]) == ("queued", "blocked", 1)
    assert s.hash("v:lt") == {"q": b"1"}
    assert s.list() == [second]
    assert s.claim("e1", 2) == [second]
    assert line(s, "lt") == [(third, 4)]
    assert s.claim("e1", 2, (second, "f", 9, b"x")) == [third]
    s.step("e1", 0, (third, "s", 0))
    assert not {name for name in s.names() if name[:2] in {"l:", "v:", "q:"}}
    assert "w" not in s.counts()


@scenario
def limits_of_a_key_and_of_all(s: Script) -> None:
    s.join()
    of = Limit(2, key="tenant", per_key=1)
    ids = [s.put(s.job(options=limit(of, key)))[0] for key in "aabbc"]
    assert s.claim("e1", 9) == [ids[0], ids[2]]
    assert (permits(s, "kt:a"), permits(s, "lt")) == ({ids[0]}, {ids[0], ids[2]})
    assert (line(s, "kt:a"), line(s, "kt:b"), line(s, "lt")) == ([(ids[1], 4)], [(ids[3], 4)], [(ids[4], 4)])
    assert s.claim("e1", 9, (ids[2], "s", 0)) == [ids[4]]
    assert line(s, "lt") == [(ids[3], 4)], "called up by its key, it waits for the rest"
    assert s.claim("e1", 9, (ids[4], "s", 0)) == [ids[3]]
    assert s.claim("e1", 9, (ids[0], "s", 0)) == [ids[1]]
    s.step("e1", 0, (ids[1], "s", 0), (ids[3], "s", 0))
    assert not {name for name in s.names() if name[:2] in {"l:", "v:", "q:", "y:"}}
    s.put(s.job(options=limit(Limit(key="tenant", per_key=1), "d")))
    assert len(s.claim("e1", 9)) == 1
    assert s.redis("EXISTS", "l:lt") == 0, "what has no bound is not counted"


@scenario
def who_finds_another_gate_shut_lets_the_next_go(s: Script) -> None:
    s.join()
    of = Limit(1, key="tenant", per_key=1)
    s.put(s.job(options=limit(of, "c")))
    s.claim("e1", 1)
    (second,) = s.put(s.job(options=limit(of, "a")))
    (third,) = s.put(s.job(options=limit(of, "b")))
    assert s.claim("e1", 9) == []
    assert line(s, "lt") == [(second, 4), (third, 4)]
    regulate(s, lt=[9, 1])
    assert s.list() == [second], "the new number lets one go at once"
    s.redis("SADD", "l:kt:a", "somebody")
    assert s.claim("e1", 9) == [third], "in the very step in which the second finds its key taken"
    assert line(s, "kt:a") == [(second, 4)]


@scenario
def whoever_is_called_up_is_not_overtaken(s: Script) -> None:
    s.join()
    (first,) = s.put(s.job(options=ONE))
    s.claim("e1", 1)
    (low,) = s.put(s.job(options=ONE, priority=1))
    s.claim("e1", 1)
    s.step("e1", 0, (first, "s", 0))
    (high,) = s.put(s.job(options=ONE, priority=9))
    assert s.claim("e1", 9) == [low]
    assert line(s, "lt") == [(high, 0)]
    (lower,) = s.put(s.job(options=ONE, priority=1))
    assert s.claim("e1", 9) == []
    assert s.claim("e1", 9, (low, "s", 0)) == [high]
    assert s.claim("e1", 9, (high, "s", 0)) == [lower]


@scenario
def a_newcomer_may_overtake_a_lower_one(s: Script) -> None:
    s.join()
    of = Rate(10, burst=10)
    (dear,) = s.put(s.job(options=rate(of, 8.0)))
    assert s.claim("e1", 9) == [dear]
    (next_one,) = s.put(s.job(options=rate(of, 4.0)))
    assert s.claim("e1", 9) == []
    (cheap,) = s.put(s.job(options=rate(of)))
    (urgent,) = s.put(s.job(options=rate(of), priority=9))
    assert s.claim("e1", 9) == [urgent]
    assert line(s, "rt") == [(next_one, 4), (cheap, 4)]


@scenario
def who_was_called_up_gives_way_at_wider_gates_only(s: Script) -> None:
    s.join()
    of = Limit(2, key="tenant", per_key=1)
    a, b = (s.put(s.job(options=limit(of, key)))[0] for key in "ab")
    assert s.claim("e1", 9) == [a, b]
    (again,) = s.put(s.job(options=limit(of, "a"), priority=9))
    (other,) = s.put(s.job(options=limit(of, "c"), priority=1))
    assert s.claim("e1", 9) == []
    assert (line(s, "kt:a"), line(s, "lt")) == ([(again, 0)], [(other, 8)])
    assert s.claim("e1", 9, (a, "s", 0)) == [other], "a place that was promised is kept"
    assert line(s, "lt") == [(again, 0)]
    assert s.claim("e1", 9, (b, "s", 0)) == [again]


@scenario
def two_who_were_called_up_get_past_each_other(s: Script) -> None:
    s.join()
    of = Limit(3, key="tenant", per_key=2)
    ids = [s.put(s.job(options=limit(of, key)))[0] for key in "aaaaaaaabbbbcc"]
    running, seen = s.claim("e1", 3), []
    while running:
        assert len(running) <= 3
        seen += running
        running = s.claim("e1", 99, *((id, "s", 0) for id in running))
    assert sorted(seen) == ids


@scenario
def lines_of_one_key_at_two_gates(s: Script) -> None:
    s.join()
    of = Limit(2, key="tenant", per_key=1)

    def put(key: str, count: int = 1) -> list[str]:
        return s.put(count=count, options=limit(of, key))

    (a, b), first, (c,) = (*put("a"), *put("b")), put("a", 4), put("c")
    assert s.claim("e1", 9) == [a, b]
    assert s.claim("e1", 9, (a, "s", 0)) == [c]
    assert [id for id, _ in line(s, "lt")] == first, "its key is free, but not a place for it"
    assert s.claim("e1", 9, (c, "s", 0)) == first[:1]
    second = put("a", 4)
    assert s.claim("e1", 9) == []
    assert [id for id, _ in line(s, "kt:a")] == second
    running, seen = first[:1], first[:1]
    while running:
        running = s.claim("e1", 9, *((id, "s", 0) for id in running))
        assert len(running) == (len(seen) < 8)
        seen += running
    assert sorted(seen) == [*first, *second]


@scenario
def one_call_in_sixteen_goes_to_the_lowest(s: Script) -> None:
    s.join()
    (running,) = s.put(s.job(options=ONE))
    s.claim("e1", 1)
    lows = [s.put(s.job(options=ONE, priority=1))[0] for _ in range(3)]
    highs = [s.put(s.job(options=ONE, priority=8))[0] for _ in range(20)]
    s.claim("e1", 1)
    order = []
    for _ in range(19):
        (running,) = s.claim("e1", 1, (running, "s", 0))
        order.append(running)
    assert order == [*highs[:15], lows[0], *highs[15:18]]


@scenario
def each_queue_has_a_line_of_its_own(s: Script) -> None:
    s.join()
    (first,) = s.put(s.job(options=ONE))
    s.claim("e1", 1)
    (here,) = s.put(s.job(options=ONE))
    (there,) = s.put(s.job(queue="p", options=ONE))
    s.put(s.job(queue="p", priority=3))
    with Ear(s, "sleeper") as ear:
        s.join("sleeper", queues=["p"])
        s.redis("SADD", "i:p", "sleeper")
        assert len(s.claim("e1", 1, queues=["q", "p"])) == 1
        s.step("e1", 0, (first, "s", 0))
        assert ear.heard() == [("sleeper", b"wp")]
    assert (line(s, "lt"), line(s, "lt", "p")) == ([(here, -1)], [(there, -1)])
    assert s.claim("e1", 9, queues=["p"]) == [there]
    assert s.claim("e1", 9) == []
    assert line(s, "lt") == [(here, 4)]
    assert s.hash("v:lt") == {"q": b"0"}
    s.step("e1", 0, (there, "s", 0))
    assert s.claim("e1", 1, queues=["p", "q"]) == [here]


@scenario
def a_step_goes_on_with_whom_it_calls_up(s: Script) -> None:
    s.join()
    ids = s.put(count=6, options=limit(Limit(3)))
    assert s.claim("e1", 9) == ids[:3]
    assert s.claim("e1", 2, *((id, "s", 0) for id in ids[:3])) == ids[3:5]
    assert s.list() == [ids[5]]
    assert s.claim("e1", 9) == [ids[5]]


@scenario
def quotas_hold_over_rounds(s: Script) -> None:
    s.join()
    ids = s.put(count=6, options=limit(Limit(3)))
    s.claim("e1", 9)
    assert s.claim("e1", 9, *((id, "s", 0) for id in ids[:3]), queues=[("q", 2)]) == ids[3:5]


@scenario
def a_worker_that_dies_gives_its_permits_back(s: Script) -> None:
    s.join()
    s.join("e2")
    first, second = s.put(count=2, options=ONE)
    s.claim("e1", 9)
    assert s.reap() == 1
    assert permits(s, "lt") == set()
    assert s.list() == [first, second]
    assert s.claim("e2", 9) == [second], "who was called up"
    assert s.claim("e2", 9, (second, "s", 0)) == [first]
    s.cancel(first)
    (third,) = s.put(s.job(options=ONE))
    assert s.reap("e2") == 1
    s.join()
    assert s.claim("e1", 9) == [third]


@scenario
def cancelling_who_waits(s: Script) -> None:
    s.join()
    first, second, third, fourth = s.put(count=4, options=ONE)
    s.claim("e1", 9)
    assert s.cancel(third) == "blocked"
    assert line(s, "lt") == [(second, 4), (fourth, 4)]
    assert s.counts()["w"] == 2
    s.step("e1", 0, (first, "s", 0))
    assert s.cancel(second) == "queued"
    assert line(s, "lt") == [(fourth, -1)]
    assert "w" not in s.counts()
    assert s.claim("e1", 9) == [fourth]
    s.step("e1", 0, (fourth, "s", 0))
    assert "g" not in s.counts()


@scenario
def who_is_too_late_takes_no_permit(s: Script) -> None:
    s.join()
    (first,) = s.put(s.job(options=ONE))
    s.claim("e1", 1)
    stale, old, due, dated, patient, tried = s.put(
        s.job(options={**ONE, "expires": 5}),
        s.job(options={**ONE, "expires": 5}),
        s.job(options={**ONE, "deadline": 5}),
        s.job(options={**ONE, "until_s": s.now / 1000 + 5}),
        s.job(options={**ONE, "expires": 50, "deadline": 50, "until_s": s.now / 1000 + 50}),
        s.job(options={**ONE, "expires": 5}),
    )
    s.claim("e1", 9)
    s.redis("HSET", "x", tried, msgspec.msgpack.encode({"a": 1, "b": s.now}))
    s.step("e1", 0, (first, "s", 0))
    s.now += 5900
    (soon,) = s.put(s.job(options={**ONE, "expires": 5}, priority=9))
    assert s.claim("e1", 9) == [stale]
    assert permits(s, "lt") == {stale}, "not late by a second yet"
    s.now += 101
    assert s.claim("e1", 9, (stale, "s", 0)) == [soon]
    assert s.claim("e1", 9, (soon, "s", 0)) == [old, due, dated, patient]
    assert permits(s, "lt") == {patient}
    assert s.claim("e1", 9, (due, "e", 0), (dated, "e", 0)) == []
    assert s.claim("e1", 9, (patient, "s", 0)) == [tried]
    assert permits(s, "lt") == {tried}
    (again,) = s.put(s.job(options={**ONE, "expires": 5}))
    s.claim("e1", 9)
    s.redis("HSET", "x", again, msgspec.msgpack.encode({"d": 1, "b": s.now}))
    s.now += 9000
    assert s.claim("e1", 9, (tried, "s", 0)) == [again]
    assert permits(s, "lt") == {again}


@scenario
def a_rate_lets_one_go_at_a_time(s: Script) -> None:
    s.join()
    first, second, third = s.put(count=3, options=TENTH)
    answer = s.step("e1", 9)
    assert answer[3] == [first]
    assert s.redis("GET", "l:rt") == b"%d" % (s.now * 1000 + 100_000)
    assert 50_000 < s.redis("PTTL", "l:rt") <= 60_100
    assert bells(s) == {"~rt": s.now + 100}
    assert (s.counts()["w"], s.counts()["t"]) == (2, 1)
    assert s.step("e1", 9)[2:4] == [s.now + 100, []]
    _, _, _, ((queued, scheduled, *_),) = s.fcall("depth", "q")
    assert (queued, scheduled) == (0, 0)
    s.now += 99
    assert s.step("e1", 9)[2:4] == [s.now + 1, []]
    s.now += 1
    assert s.claim("e1", 9) == [second]
    assert bells(s) == {"~rt": s.now + 100}
    assert s.counts()["t"] == 1
    s.now += 100
    assert s.claim("e1", 9) == [third]
    assert bells(s) == {}
    assert "t" not in s.counts()
    assert s.redis("EXISTS", "r:q:~") == 0
    s.step("e1", 0, (first, "s", 0), (second, "s", 0), (third, "s", 0))
    assert not {name for name in s.names() if name[:2] in {"v:", "q:", "d:"}}


@scenario
def a_rate_that_rings_in_an_answer(s: Script) -> None:
    s.join()
    s.put(count=2, options=TENTH)
    s.claim("e1", 1)
    assert s.step("e1", 9)[2:4] == [s.now + 100, []], "in the step that found it held up"
    with Ear(s, "e1") as ear:
        s.step("e1", 9, idle=True)
        s.join("e2", queues=["p"])
        s.put(count=2, options=rate(Rate(20), key="k"))
        ear.heard()
        s.redis("SADD", "i:q", "e1")
        s.claim("e2", 9)
        assert ("e1", b"wq") in ear.heard(), "who sleeps hears of an earlier date"
    assert bells(s) == {"~rt": s.now + 100, "~rt:k": s.now + 50}


@scenario
def a_burst_and_costs(s: Script) -> None:
    s.join()
    of = Rate(10, burst=3)
    ids = s.put(count=5, options=rate(of))
    assert s.claim("e1", 9) == ids[:3]
    s.now += 1000
    assert s.claim("e1", 9) == ids[3:]
    (dear,) = s.put(s.job(options=rate(of, 2.5)))
    assert s.step("e1", 9)[2:4] == [s.now + 150, []]
    s.now += 150
    assert s.claim("e1", 9) == [dear]
    (free,) = s.put(s.job(options=rate(of, 0.0)))
    assert s.claim("e1", 9) == [free]
    (odd,) = s.put(s.job(options=rate(Rate(3, per=1, burst=3, name="odd"), 99.0)))
    assert s.claim("e1", 9) == [odd], "no cost is more than the burst, were it lowered since"
    assert s.redis("GET", "l:rodd") == b"%d" % (s.now * 1000 + 3 * 333_334)
    parts = s.put(count=2, options=rate(Rate(3, name="parts"), 0.75))
    assert s.claim("e1", 9) == parts[:1]
    assert s.redis("GET", "l:rparts") == b"%d" % (s.now * 1000 + 250_001)
    assert bells(s) == {"~rparts": s.now + 167}


@scenario
def rates_by_key_and_beside_a_limit(s: Script) -> None:
    s.join()
    of = rate(Rate(1, per=60), key="a") | limit(Limit(1))
    first, second = s.put(count=2, options=of)
    (third,) = s.put(s.job(options=rate(Rate(1, per=60), key="b") | limit(Limit(1))))
    assert s.claim("e1", 9) == [first]
    assert line(s, "lt") == [(second, 4), (third, 4)]
    assert s.claim("e1", 9, (first, "s", 0)) == [third], "the second waits for its time, not for a permit"
    assert line(s, "rt:a") == [(second, 4)]
    assert s.redis("EXISTS", "l:rt:b") == 1


@scenario
def numbers_may_change(s: Script) -> None:
    s.join()
    _, second, third = s.put(count=3, options=rate(Rate(1, per=3600)))
    s.claim("e1", 9)
    regulate(s, rt=[100_000, 1])
    assert bells(s) == {"~rt": s.now + 100}
    s.now += 100
    assert s.claim("e1", 9) == [second]
    regulate(s, rt=[3_600_000_000, 2], lother=[5, 0])
    assert s.claim("e1", 9) == [third]
    four = s.put(count=2, options=limit(Limit(9, name="other")))
    regulate(s, lother=[1, 0])
    assert s.claim("e1", 9) == four[:1]
    keyed = s.put(count=2, options=limit(Limit(9, key="k", per_key=9, name="keyed"), "x"))
    regulate(s, lkeyed=[0, 1])
    assert s.claim("e1", 9) == keyed[:1]
    assert s.redis("EXISTS", "l:lkeyed") == 0


@scenario
def a_clock_that_goes_back_stops_nobody_for_long(s: Script) -> None:
    s.join()
    _, second = s.put(count=2, options=TENTH)
    s.claim("e1", 9)
    s.now -= 3_600_000
    s.claim("e1", 9, *())
    (other,) = s.put(s.job(options=TENTH, priority=9))
    assert s.claim("e1", 9) == []
    s.now += 100
    assert s.claim("e1", 9) == [other]
    assert second


@scenario
def what_waits_takes_room(s: Script) -> None:
    s.join()
    s.put(count=3, options=TENTH)
    s.claim("e1", 9)
    s.fcall("switch", "q", "b", 4)
    assert s.send(s.job(), s.job(), s.job()) == [1, b"2f"], "two wait; the bell is no job"


@scenario
def a_malformed_limit_keeps_its_job_to_itself(s: Script) -> None:
    s.join()
    bad, good = s.put(s.job(options={"limit": 7}), s.job(options=ONE))
    assert s.claim("e1", 9) == [good]
    assert s.hash("p").keys() == {bad}
    other, short = s.put(count=2)
    s.redis("HSET", "e", other, b"2\xff", short, b"1")
    assert s.claim("e1", 9) == [other, short], "a worker that reads it, or fails it, is to come"


@scenario
def a_job_may_be_given_its_gates_later(s: Script) -> None:
    s.join()
    jobs = [s.job(options=some) for some in ({}, {"timeout": 1, "expires": 5}, {"note": "n" * 300})]
    s.put(*jobs)
    assert s.claim("e1", 9) == [job.id for job in jobs]
    for job in jobs[:2]:
        options = {**job.options, **ONE}
        s.step("e1", 0, (job.id, "g", 0, pack_tail(options, b"call")))
        assert s.list()[0] == job.id
        assert s.hash("e")[job.id] == pack_body(s.job(job.id, options=options))
    third = {**jobs[2].options, **ONE}
    assert s.claim("e1", 9, (jobs[2].id, "g", 0, pack_tail(third, b"other"))) == [jobs[2].id]
    assert s.hash("e")[jobs[2].id] == pack_body(s.job(jobs[2].id, payload=b"other", options=third))
    assert permits(s, "lt") == {jobs[2].id}
    s.cancel(jobs[2].id)
    assert s.claim("e1", 9, (jobs[2].id, "g", 0, pack_tail(third, b"call"))) == [jobs[0].id]
    assert s.state(jobs[2].id) == "c"


# ------------------------------------------------------------------------------------------------ debounced calls


def debounced(s: Script, payload: bytes = b"call", **more: Any) -> Job:
    options = {"unique": "k", "debounce": 5, **more.pop("options", {})}
    return s.job(payload=payload, options=options, **{"delay_s": 5, **more})


@scenario
def a_later_call_takes_the_place_of_one_that_waits(s: Script) -> None:
    s.join()
    first = debounced(s, b"first", priority=3)
    s.put(first)
    s.now += 3000
    last = debounced(s, b"last", queue="p", options={"expires": 60})
    assert s.send(last) == [1, f"0u{first.id}".encode()]
    assert s.look(last.id) == [None]
    assert (s.redis("ZCARD", "d:q"), bells(s, "p")) == (0, {f"5{first.id}": s.now + 5000})
    assert s.note(first.id) == {"b": s.now}
    s.fcall("wait", "me", first.id)
    s.now += 1000
    assert s.send(debounced(s, b"more", options={"expires": 60})) == [1, f"0u{first.id}".encode()]
    assert s.note(first.id) == {"b": s.now, "w": ["me"]}
    s.now += 5000
    answer = s.step("e1", 1)
    assert answer[3] == [first.id]
    assert b"more" in answer[4][0]


@scenario
def a_call_that_comes_too_late_is_one_of_its_own(s: Script) -> None:
    s.join()
    (first,) = s.put(debounced(s))
    s.now += 5000
    assert s.claim("e1", 1) == [first]
    (second,) = s.put(debounced(s))
    assert s.send(s.job(options={"unique": "k"})) == [1, f"0u{second}".encode()]
    s.step("e1", 0, (first, "r", 60_000, b"why"))
    assert s.send(debounced(s)) == [1, f"0u{second}".encode()]
    s.now += 5000
    s.claim("e1", 1)
    s.step("e1", 0, (second, "r", 60_000, b"why"))
    (third,) = s.put(debounced(s))
    assert s.state(second) == "retrying", "what has begun is not taken over"
    s.cancel(second)
    assert s.hash("u") == {"k": third.encode()}, "its key is another's by now"
    s.cancel(third)
    assert s.hash("u") == {}


@scenario
def a_replayed_call_is_no_later_one(s: Script) -> None:
    s.join()
    (first,) = s.put(debounced(s))
    s.now += 5000
    s.claim("e1", 1)
    s.step("e1", 0, (first, "f", 60, b"x"))
    (second,) = s.put(debounced(s))
    assert s.fcall("replay", first) == [1]
    assert (s.state(first), s.state(second)) == ("queued", "scheduled")


@scenario
def looks_at_who_is_held_up_are_bounded(s: Script) -> None:
    s.join()
    s.put(count=1, options=ONE)
    s.put(count=1200, options=ONE)
    s.claim("e1", 1)
    answer = s.step("e1", 5)
    assert answer[2:4] == [s.now, []]
    assert s.counts()["w"] in range(400, 1001)
