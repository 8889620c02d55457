"""What each function of ``brokers/lua`` does, as short deterministic stories over the raw functions.

`tests/unit/queue/test_redis_script.py` tells them to the script as it is; `test_redis_mutants.py` to the script with
a line less, and expects that at least one of them fails.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asyncworker.queue.body import Note, pack_body, read_note
from asyncworker.queue.codec import base32, pack_call, unpack_record
from asyncworker.queue.job import APART, Job, Record
from tests.support.redis_script import START_MS, Ear, Script, ScriptError

Scenario = Callable[[Script], None]
SCENARIOS: dict[str, Scenario] = {}
CANCELLED_TTL = 3600
NO_WRITES = ("asked", "look", "find", "running", "places", "list", "depth", "queues", "dead", "plans")
FAILED_TTL = 7 * 86400


def scenario(tell: Scenario) -> Scenario:
    SCENARIOS[tell.__name__] = tell
    return tell


def ttl_of(s: Script, key: str) -> int:
    """Return a key's seconds to live, none of which has passed yet."""
    return round(s.redis("PTTL", key) / 1000)


def listed(s: Script, key: str) -> list[str]:
    return [name.decode() for name in s.redis("ZRANGE", key, 0, -1)]


# ------------------------------------------------------------------------------------------------ plain jobs


@scenario
def plain_jobs_come_and_go(s: Script) -> None:
    s.join()
    ids = s.put(count=3)
    assert s.list() == ids
    assert s.counts() == {"n": 3}
    answer = s.step("e1", 2)
    bodies = [pack_body(s.job(id)) for id in ids]
    assert answer == [1, s.now, -1, ids[:2], bodies[:2], []]
    assert s.hash("a:e1").keys() == {"", *ids[:2]}
    assert s.hash("a:e1")[ids[0]] == b"%d" % s.now
    assert s.list() == ids[2:]
    answer = s.step("e1", 1, runs=[("q", 60, [(ids[0], b"A"), (ids[1], b"B")])])
    assert answer == [1, s.now, -1, ids[2:], bodies[2:], []]
    assert s.held() == {ids[2]}
    assert set(s.hash("e")) == {ids[2]}
    bucket = ids[0][:-1]
    assert s.hash(f"o:{bucket}") == {ids[0][-1]: b"A", ids[1][-1]: b"B"}
    assert ttl_of(s, f"o:{bucket}") == 60
    assert s.counts() == {"n": 3, "s": 2}
    assert s.look(*ids) == [b"sA", b"sB", b""]
    assert s.step("e1", 5, runs=[("q", 60, [(ids[2], b"C")])])[3] == []
    assert s.names() == {"b", "a:e1", "c", "w:lane", f"o:{bucket}"}


@scenario
def a_bucket_lives_as_long_as_its_youngest_result(s: Script) -> None:
    s.join()
    ids = s.put(count=40)
    assert s.claim("e1", 40) == ids
    bucket = f"o:{ids[0][:-1]}"
    for id, ttl, lives in zip(ids, [60, 100, 10], [60, 100, 100], strict=False):
        s.step("e1", 0, runs=[("q", ttl, [(id, b"")])])
        assert ttl_of(s, bucket) == lives
    s.step("e1", 0, runs=[("q", 7, [(id, id.encode()) for id in ids[3:]]), ("q", 0, [])])
    assert s.redis("HLEN", bucket) == 32
    assert s.redis("HLEN", f"o:{ids[39][:-1]}") == 8
    assert s.look(ids[31], ids[32]) == [b"s" + ids[31].encode(), b"s" + ids[32].encode()]


@scenario
def results_that_nobody_keeps(s: Script) -> None:
    s.join()
    first, second, third = s.put(count=3)
    s.claim("e1", 3)
    s.step("e1", 0, (second, "s", 0, b"x"), (third, "f", 0, b"x"), runs=[("q", 0, [(first, b"x")])])
    assert s.look(first, second, third) == [None, None, None]
    assert s.counts() == {"n": 3, "s": 2, "f": 1}
    assert s.names() == {"b", "a:e1", "c", "w:lane", "m"}


@scenario
def runs_of_several_queues(s: Script) -> None:
    s.join()
    (one,), (two,) = s.put(count=1), s.put(count=1, queue="p")
    assert s.claim("e1", 9, queues=["q", "p"]) == [one, two]
    s.step("e1", 0, (two, "s", 0, b"x"), runs=[("q", 9, [(one, b"1")]), ("p", 9, [(two, b"2")])])
    assert s.look(one, two) == [b"s1", b"s2"]
    assert (s.counts("q")["s"], s.counts("p")["s"]) == (1, 1)


@scenario
def a_job_ends_once(s: Script) -> None:
    s.join()
    first, second = s.put(count=2)
    s.claim("e1", 2)
    s.redis("HDEL", "e", first, second)
    s.claim("e1", 0, (first, "f", 60, b"x"))
    assert s.reap() == 1
    assert s.look(first, second) == [None, None]
    assert s.counts() == {"n": 2}
    assert s.names() == {"c", "w:lane", "m"}


@scenario
def only_what_is_held_is_settled(s: Script) -> None:
    s.join()
    s.join("e2")
    first, second, third = s.put(count=3)
    s.claim("e1", 1)
    s.claim("e2", 2)
    s.step("e1", 0, (third, "s", 60, b"x"), runs=[("q", 60, [(first, b"1"), (second, b"x")])])
    assert s.look(first, second, third) == [b"s1", b"", b""]
    assert s.counts() == {"n": 3, "s": 1}
    assert s.held("e2") == {second, third}


@scenario
def more_than_lua_unpacks_at_once(s: Script) -> None:
    s.join()
    ids = s.new_ids(8200)
    s.redis("HSET", "e", *(word for id in ids for word in (id, pack_body(s.job(id)))))
    s.redis("HSET", "a:e1", *(word for id in ids for word in (id, s.now)))
    s.redis("HSET", "x", ids[-1], msgspec.msgpack.encode({"a": 1}))
    s.step("e1", 0)
    answer = s.step("e1", 0, seq=1)
    assert sorted(answer[3]) == ids
    assert answer[4] == [pack_body(s.job(id)) for id in answer[3]]
    assert [note is not None for note in answer[5]] == [id == ids[-1] for id in answer[3]]


@scenario
def thousands_at_once(s: Script) -> None:
    s.join()
    ids = s.put(count=2500)
    assert s.claim("e1", 2500) == ids
    assert s.held() == set(ids)
    s.step("e1", 0, runs=[("q", 9, [(id, b"x") for id in ids])])
    assert s.counts() == {"n": 2500, "s": 2500}
    assert s.names() == {"b", "a:e1", "c", "w:lane", "m", *(f"o:{id[:-1]}" for id in ids)}


# ------------------------------------------------------------------------------------------------ order and limits


@scenario
def higher_levels_first_or_last(s: Script) -> None:
    s.join()
    by_level = {level: s.put(count=2, priority=level) for level in (3, 0, 9, 5)}
    assert s.claim("e1", 3) == [*by_level[9], by_level[5][0]]
    assert s.claim("e1", 3, lowest=True) == [*by_level[0], by_level[3][0]]
    assert s.claim("e1", 3) == [by_level[5][1], by_level[3][1]]


@scenario
def steps_know_which_lists_to_look_at(s: Script) -> None:
    s.join()
    low, high = s.put(count=2, priority=3), s.put(count=2, priority=7)
    (more,) = s.put(count=1, priority=7)
    assert s.hash("m") == {"q:l": b"37"}
    assert s.claim("e1", 3) == [*high, more]
    assert s.hash("m") == {"q:l": b"37"}, "nobody has seen an end"
    s.put(count=1, priority=7)
    assert s.hash("m") == {"q:l": b"37"}
    assert s.claim("e1", 2)[1:] == low[:1]
    assert s.hash("m") == {"q:l": b"3"}
    s.redis("HDEL", "m", "q:l")
    assert s.claim("e1", 9) == [], "a list that nobody speaks of is not looked at"
    s.redis("HSET", "m", "q:l", "3")
    assert s.claim("e1", 9) == low[1:]
    assert s.hash("m") == {}
    s.claim("e1", 0, (low[0], "u"))
    assert s.hash("m") == {"q:l": b"3"}


@scenario
def steps_know_when_to_look_for_what_is_due(s: Script) -> None:
    s.join()
    early, late = s.put(s.job(delay_s=1), s.job(delay_s=2))
    assert s.hash("m") == {"q:d": b"%d" % (s.now + 1000)}
    s.put(s.job(delay_s=3))
    assert s.hash("m") == {"q:d": b"%d" % (s.now + 1000)}
    assert s.cancel(early) == "scheduled"
    assert s.step("e1", 1)[2] == s.now + 1000, "to look too early does no harm"
    s.now += 1000
    assert s.step("e1", 1)[2] == s.now + 1000
    assert s.hash("m") == {"q:d": b"%d" % (s.now + 1000)}
    s.now += 2000
    assert s.claim("e1", 1) == [late]
    assert s.hash("m") == {"q:l": b"5"}


@scenario
def what_comes_back_in_a_step_may_be_claimed_in_it(s: Script) -> None:
    s.join()
    first, second, third = s.put(count=3)
    s.claim("e1", 3)
    answer = s.step("e1", 2, (third, "r", 0, b"why"), runs=[("q", 60, [(first, b"1"), (second, b"2")])])
    assert answer[3] == [third]
    assert read_note(answer[5][0]) == Note(attempts=1, error="why")


@scenario
def each_queue_has_its_quota(s: Script) -> None:
    s.join()
    p, q = s.put(count=3, queue="p"), s.put(count=3)
    assert s.claim("e1", 9, queues=[("p", 1), ("q", 2)]) == [p[0], *q[:2]]
    assert s.claim("e1", 2, queues=[("p", 1), ("q", 2)]) == [p[1], q[2]]
    assert s.claim("e1", 9, queues=[("p", 0), ("q", 2)]) == []
    assert s.claim("e1", 0, queues=[("p", 2)]) == []


@scenario
def dead_ids_are_passed_over(s: Script) -> None:
    s.join()
    ids = s.put(count=6)
    for id in ids[:4]:
        assert s.cancel(id) == "queued"
    assert s.counts() == {"n": 6, "c": 4, "g": 4}
    assert s.list() == ids
    assert s.claim("e1", 1) == [ids[4]]
    assert s.counts() == {"n": 6, "c": 4}
    assert s.claim("e1", 9) == [ids[5]]


@scenario
def a_thousand_looks_are_enough(s: Script) -> None:
    s.join()
    ids = s.put(count=1000)
    s.redis("HDEL", "e", *ids)
    (alive,) = s.put(count=1)
    answer = s.step("e1", 1, idle=True)
    assert answer[:4] == [1, s.now, s.now, []], "it must look again at once"
    assert s.list() == [alive]
    assert s.claim("e1", 1) == [alive]


@scenario
def a_thousand_looks_that_found_something(s: Script) -> None:
    s.join()
    first, *ids = s.put(count=1001)
    s.redis("HDEL", "e", *ids)
    s.now += 1
    assert s.step("e1", 2)[:4] == [1, s.now, s.now, [first]]


# ------------------------------------------------------------------------------------------------ fence and sequence


@scenario
def the_fenced_change_nothing(s: Script) -> None:
    s.join()
    first, second = s.put(count=2)
    s.claim("e1", 1)
    assert s.reap() == 1
    before = s.hash("c")
    assert s.step("e1", 5, (second, "s", 60, b""), runs=[("q", 60, [(first, b"x")])]) == [-1]
    assert s.fcall("beat", "e1", 1) == [-1]
    assert s.hash("c") == before
    assert s.list() == [first, second]
    assert s.hash("b") == {}


@scenario
def a_repeated_step_is_applied_once(s: Script) -> None:
    s.join()
    ids = s.put(count=6)
    assert s.claim("e1", 3) == ids[:3]
    settled = [(ids[0], "r", 5, b"oops"), (ids[1], "s", 60, b"x")]
    assert s.claim("e1", 2, *settled) == ids[3:5]
    before = s.hash("c"), s.hash("x"), s.hash("b")
    answer = s.step("e1", 2, *settled, seq=2)
    assert answer[:3] == [-2, s.now, -1]
    assert sorted(answer[3]) == ids[2:5]
    assert answer[4] == [pack_body(s.job(id)) for id in answer[3]]
    assert (s.hash("c"), s.hash("x"), s.hash("b")) == before
    assert s.claim("e1", 9) == ids[5:]


@scenario
def a_repeated_step_that_holds_nothing(s: Script) -> None:
    s.join()
    assert s.claim("e1", 3) == []
    assert s.step("e1", 3, seq=1) == [-2, s.now, -1, [], [], []]


@scenario
def a_repeated_step_brings_notes(s: Script) -> None:
    s.join()
    ids = s.put(count=2)
    s.claim("e1", 1)
    s.claim("e1", 0, (ids[0], "r", 0, b"why"))
    assert s.claim("e1", 2) == [ids[1], ids[0]]
    answer = s.step("e1", 2, seq=3)
    assert {id: read_note(note).attempts for id, note in zip(answer[3], answer[5], strict=True)} == {
        ids[0]: 1,
        ids[1]: 0,
    }


@scenario
def a_late_copy_is_ignored(s: Script) -> None:
    s.join()
    first, second = s.put(count=2)
    s.claim("e1", 1)
    s.claim("e1", 0)
    before = s.hash("b")
    assert s.step("e1", 5, (first, "s", 60, b""), seq=1) == [-4]
    assert s.hash("b") == before
    assert s.list() == [second]
    assert s.held() == {first}


@scenario
def after_a_gap_all_that_is_held_comes_back(s: Script) -> None:
    s.join()
    ids = s.put(count=4)
    s.claim("e1", 2)
    answer = s.step("e1", 2, (ids[0], "s", 60, b"x"), seq=5)
    assert answer == [-3, s.now, -1, [ids[1]], [pack_body(s.job(ids[1]))], []]
    assert s.look(ids[0]) == [b"sx"]
    assert s.list() == ids[2:]
    assert s.hash("b")["e1"].startswith(b"5:")
    assert s.claim("e1", 1) == [ids[2]]


@scenario
def the_servers_clock(s: Script) -> None:
    s.join()
    seconds, micros = map(int, s.raw("TIME"))
    now = s.step("e1", 0, now=0)[1]
    assert 0 <= now - seconds * 1000 - micros // 1000 < 5000


# ------------------------------------------------------------------------------------------------ one by one


@scenario
def each_end(s: Script) -> None:
    s.join()
    for letter in "sfce":
        (id,) = s.put(count=1)
        s.claim("e1", 1)
        s.claim("e1", 0, (id, letter, 60, b"record"))
        key = f"o:{id[:-1]}" if letter == "s" else f"f:{id}"
        assert s.look(id) == [letter.encode() + b"record"]
        assert ttl_of(s, key) == 60
        assert s.find(id)[:2] == [letter.encode(), b"record"]
        assert s.cancel(id) == letter
    assert s.counts() == {"n": 4, "s": 1, "f": 1, "c": 1, "e": 1}
    assert s.hash("e") == {}
    assert s.held() == set()


@scenario
def what_comes_back(s: Script) -> None:
    s.join()
    ids = s.put(count=3)
    s.claim("e1", 3)
    assert s.claim("e1", 0, *zip(ids, "rzp", (10, 20, 30), (b"r", b"z", b"p"), strict=True)) == []
    assert [s.note(id) for id in ids] == [{"a": 1, "e": "r"}, {"e": "z"}, {"p": 1, "e": "p"}]
    assert [s.state(id) for id in ids] == ["retrying", "scheduled", "scheduled"]
    assert s.redis("ZRANGE", "d:q", 0, -1, "WITHSCORES") == [
        word for n, id in enumerate(ids, 1) for word in (f"5{id}".encode(), b"%d" % (s.now + 10 * n))
    ]
    assert s.counts() == {"n": 3, "r": 1}
    assert s.held() == set()
    assert s.step("e1", 9)[1:4] == [s.now, s.now + 10, []]
    s.now += 20
    answer = s.step("e1", 9)
    assert answer[3] == ids[:2]
    assert [msgspec.msgpack.decode(note) for note in answer[5]] == [{"a": 1, "e": "r"}, {"e": "z"}]
    s.claim("e1", 0, (ids[0], "r", 11, b"again"))
    assert s.note(ids[0]) == {"a": 2, "e": "again"}
    s.now += 11
    assert s.claim("e1", 9) == [ids[2], ids[0]]
    s.claim("e1", 0, (ids[2], "p", 0, b"p"))
    assert s.note(ids[2])["p"] == 2
    s.step("e1", 0, (ids[1], "f", 0), runs=[("q", 9, [(ids[0], b"")])])
    assert set(s.hash("x")) == {ids[2]}


@scenario
def checkpoints_go_with_their_job(s: Script) -> None:
    s.join()
    s.join("e2")
    ids = s.put(count=2)
    s.claim("e1", 2)
    s.claim("e2", 0, (ids[0], "k", 0, b"a zombie's"), (ids[0], "h", 0, b"a zombie's"))
    assert s.hash("x") == {}
    s.claim("e1", 0, (ids[1], "h", 0, b"1 2"))
    assert s.note(ids[1]) == {"h": "1 2"}
    s.claim("e1", 0, (ids[0], "k", 0, b"one"))
    assert s.held() == {*ids}
    s.claim("e1", 0, (ids[0], "k", 0, b"two"), (ids[0], "r", 0, b"why"))
    assert s.note(ids[0]) == {"k": "two", "a": 1, "e": "why"}
    answer = s.step("e1", 1)
    assert (answer[3], msgspec.msgpack.decode(answer[5][0])["k"]) == (ids[:1], "two")
    s.claim("e1", 0, (ids[1], "k", 0, b"three"))
    s.step("e1", 0, runs=[("q", 9, [(ids[1], b"")])])
    s.redis("HDEL", "e", ids[0])
    s.claim("e1", 0, (ids[0], "k", 0, b"of one that was struck off"))
    assert s.note(ids[0])["k"] == "two"
    assert set(s.hash("x")) == {ids[0]}


@scenario
def what_comes_back_wakes(s: Script) -> None:
    s.join()
    s.put(count=1)
    (id,) = s.claim("e1", 1)
    with Ear(s, "e2") as ear:
        s.redis("SADD", "i:q", "e2")
        s.claim("e1", 0, (id, "u"))
        assert ear.heard() == [("e2", b"wq")]


@scenario
def what_is_released_goes_first(s: Script) -> None:
    s.join()
    ids = s.put(count=3)
    s.claim("e1", 2)
    s.claim("e1", 0, (ids[1], "u"), (ids[0], "u"))
    assert s.list() == ids
    assert s.held() == set()
    assert s.hash("x") == {}


@scenario
def one_bad_item_leaves_the_others_alone(s: Script) -> None:
    s.join()
    ids = s.put(count=6)
    s.claim("e1", 5)
    s.redis("HSET", "e", ids[1], "")
    s.redis("HSET", "x", ids[3], b"\xc1")
    answer = s.step("e1", 1, (ids[0], "f", 60), (ids[1], "r"), (ids[2], "c", 60), runs=[("q", 60, [(ids[3], b"x")])])
    assert answer[:4] == [1, s.now, -1, ids[5:]]
    assert s.look(ids[0], ids[2], ids[3]) == [b"f", b"c", b"sx"]
    assert s.held() == {*ids[4:]}
    errors = s.hash("p")
    assert set(errors) == {ids[1], ids[3]}
    assert b"arithmetic" in errors[ids[1]]
    s.claim("e1", 0, (ids[1], "s", 60))
    assert s.look(ids[1]) == [b""]


@scenario
def a_job_whose_note_cannot_be_read(s: Script) -> None:
    s.join()
    (id,) = s.put(count=1)
    s.claim("e1", 1)
    s.redis("HSET", "x", id, b"\xc1")
    s.claim("e1", 0, (id, "f", 60, b"x"))
    state, _, _, at, error, _ = s.find(id)
    assert (state, at) == (b"blocked", 0)
    assert error
    assert listed(s, "y:b") == [id]
    s.redis("HDEL", "x", id)
    assert s.cancel(id) == "blocked"
    assert s.state(id) == "c"
    assert listed(s, "y:b") == []
    assert s.hash("p") == {}


# ------------------------------------------------------------------------------------------------ delayed


@scenario
def delayed_jobs(s: Script) -> None:
    s.join()
    soon, later, dated, past, now = (s.new_ids(1)[0] for _ in range(5))
    s.put(
        s.job(later, delay_s=2, priority=9),
        s.job(soon, delay_s=1),
        s.job(dated, at_s=s.now / 1000 + 3, delay_s=1),
        s.job(past, at_s=1),
        s.job(now),
    )
    assert s.counts() == {"n": 5}
    assert [s.state(id) for id in (soon, later, dated, past)] == ["scheduled"] * 3 + ["queued"]
    assert s.find(soon)[3] == b"%d" % (s.now + 1000)
    assert s.claim("e1", 9) == [past, now]
    assert s.step("e1", 9)[:4] == [1, s.now, s.now + 1000, []]
    assert s.step("e1", 0)[:4] == [1, s.now, -1, []]
    s.now += 999
    assert s.claim("e1", 9) == []
    s.now += 1
    assert s.claim("e1", 9) == [soon]
    s.now += 5000
    s.claim("e1", 0)
    assert s.redis("ZCARD", "d:q") == 2, "who claims nothing moves nothing"
    assert s.claim("e1", 9) == [later, dated]
    assert s.redis("ZCARD", "d:q") == 0


@scenario
def who_must_hurry_knows_since_when(s: Script) -> None:
    s.join()
    (id,) = s.put(s.job(options={"expires": 5}))
    s.put(s.job(options={"timeout": 5}))
    s.now += 7
    assert read_note(s.step("e1", 1)[5][0]) == Note(enqueued_ms=START_MS)
    assert read_note(s.step("e1", 1, (id, "r", 0, b"why"))[5][0]) == Note()
    assert read_note(s.step("e1", 1)[5][0]) == Note(attempts=1, error="why", enqueued_ms=START_MS)
    s.step("e1", 0, runs=[("q", 0, [(id, b"")])])
    assert s.hash("x") == {}


@scenario
def the_nearest_of_all_queues(s: Script) -> None:
    s.join()
    for queue, delay in (("p", 3), ("q", 2), ("r", 4)):
        s.put(s.job(queue=queue, delay_s=delay))
    assert s.step("e1", 1, queues=["p", "q", "r"])[2] == s.now + 2000
    assert s.step("e1", 1, queues=["none", "r"])[2] == s.now + 4000


@scenario
def some_hundred_due_jobs_move_in_a_step(s: Script) -> None:
    s.join()
    ids = s.new_ids(201)
    s.put(*(s.job(id, delay_s=1) for id in ids))
    s.now += 1000
    assert s.claim("e1", 1) == ids[:1]
    assert s.redis("ZCARD", "d:q") == 1
    assert s.claim("e1", 1000) == ids[1:]


# ------------------------------------------------------------------------------------------------ sleep and wake


@scenario
def the_idle_are_woken_one_by_one(s: Script) -> None:
    for epoch in ("e1", "e2", "e3"):
        s.join(epoch)
    with Ear(s, "e1", "e2", "e3") as ear:
        for epoch in ("e1", "e2"):
            s.claim(epoch, 1, idle=True, queues=["p", "q"])
        s.claim("e3", 1)
        s.claim("e3", 0, idle=True)
        assert s.redis("SCARD", "i:q") == s.redis("SCARD", "i:p") == 2
        ids = s.put(count=3)
        ((first, word),) = ear.heard()
        assert word == b"wq"
        assert s.redis("SCARD", "i:q") == 1
        assert s.claim(first, 1, asleep=2, queues=["p", "q"]) == ids[:1]
        ((second, word),) = ear.heard()
        assert {first, second} == {"e1", "e2"}, "who could not take all wakes the next, and not itself"
        assert s.redis("SMEMBERS", "i:p") == [second.encode()]
        assert s.claim(second, 9, asleep=2, idle=True, queues=["p", "q"]) == ids[1:]
        assert s.redis("SMEMBERS", "i:q") == s.redis("SMEMBERS", "i:p") == [second.encode()], "it could take more"
        assert ear.heard() == []


@scenario
def a_job_is_handed_to_who_sleeps_and_holds_nothing(s: Script) -> None:
    s.join("h1")
    with Ear(s, "h1") as ear:
        assert s.step("h1", 1, idle=2) == [1, s.now, -1, [], [], []]
        first = s.job(options={"x": 1})
        s.put(first)
        assert ear.heard() == [("h1", b"j%d %s %s" % (s.now, first.id.encode(), pack_body(first)))]
        assert s.hash("a:h1")[first.id] == b"%d" % s.now
        assert (s.counts(), s.list(), s.state(first.id)) == ({"n": 1}, [], "running")
        assert s.redis("SMEMBERS", "i:q") == [b"h1"], "it sleeps on, for it could take more"
        (second,) = s.put(s.job())
        assert ear.heard() == [("h1", b"wq")], "it holds one"
        assert s.list() == [second]
        assert s.claim("h1", 1, runs=[("q", 60, [(first.id, b"x")])]) == [second]
        assert s.counts() == {"n": 2, "s": 1}


@scenario
def what_was_handed_comes_again_to_who_knows_of_nothing(s: Script) -> None:
    s.join("h1")
    with Ear(s, "h1"):
        s.step("h1", 2, idle=2)
        job = s.job()
        s.put(job)
        s.redis("RPUSH", "r:q:5", "another")
        assert s.step("h1", 2, idle=2) == [-3, s.now, -1, [job.id], [pack_body(job)], []]
        assert s.claim("h1", 2, idle=1) == []


@scenario
def nothing_is_handed_where_it_would_not_have_been_claimed(s: Script) -> None:
    for epoch in ("h1", "e1"):
        s.join(epoch)
    with Ear(s, "h1", "e1") as ear:

        def is_handed(job: Job, epoch: str = "h1") -> bool:
            """Whether the epoch, which sleeps, is handed this job when it comes."""
            s.redis("DEL", f"i:{job.queue}")
            s.redis("SADD", f"i:{job.queue}", epoch)
            s.put(job)
            ((_, word),) = ear.heard()
            held = s.held(epoch)
            s.step(epoch, 0, *((id, "s", 0) for id in held), queues=[])
            assert word[:1] == (b"j" if held else b"w")
            return held == {job.id}

        assert is_handed(s.job())
        assert not is_handed(s.job(), "e1"), "it does not know what that is"
        assert is_handed(s.job(queue="large", payload=b"x" * 4000))
        assert not is_handed(s.job(queue="large", payload=b"x" * 4097))
        assert not is_handed(s.job(queue="limited", options={"limit": ["one", 1, 0]}))
        s.put(s.job(queue="due", delay_s=1))
        assert is_handed(s.job(queue="due"))
        s.now += 1000
        assert not is_handed(s.job(queue="due")), "another is due before it"
        s.step("e1", 1, queues=["due"])
        assert not is_handed(s.job(queue="due")), "another waits before it"
        s.fcall("switch", "paused", "p", 1)
        assert not is_handed(s.job(queue="paused"))
    s.redis("SADD", "i:deaf", "h1")
    (unheard,) = s.put(s.job(queue="deaf"))
    assert (s.list(queue="deaf"), s.redis("EXISTS", "i:deaf")) == ([unheard], 0)


@scenario
def who_slept_and_heard_nothing_stays_where_it_is(s: Script) -> None:
    s.join()
    ids = s.put(count=2)
    assert s.claim("e1", 3, idle=True, asleep=1) == ids
    assert s.redis("EXISTS", "i:q") == 0, "it was believed"
    assert s.claim("e1", 1, idle=True) == []
    assert s.redis("EXISTS", "i:q") == 1
    assert s.claim("e1", 0, idle=True) == []
    assert s.redis("EXISTS", "i:q") == 1, "it did not say that it slept"
    assert s.claim("e1", 0, idle=True, asleep=1) == []
    assert s.redis("EXISTS", "i:q") == 0, "who wants nothing is awake"


@scenario
def who_has_its_quota_of_a_queue_does_not_sleep_there(s: Script) -> None:
    s.join()
    s.put(count=1)
    s.claim("e1", 9, idle=True, queues=[("q", 1), ("p", 1)])
    assert (s.redis("EXISTS", "i:q"), s.redis("EXISTS", "i:p")) == (0, 1)


@scenario
def who_took_less_than_it_wants_hears_when_more_is_due(s: Script) -> None:
    s.join()
    ids = s.put(count=2)
    s.put(s.job(delay_s=1))
    assert s.step("e1", 1)[2:4] == [-1, ids[:1]]
    assert s.step("e1", 2)[2:4] == [s.now + 1000, ids[1:]]


@scenario
def who_wants_nothing_of_a_queue_is_not_woken_for_it(s: Script) -> None:
    s.join()
    (job,) = s.put(s.job(delay_s=1))
    assert s.step("e1", 1, idle=True, queues=[("q", 0), ("p", 1)])[2] == s.now + 1000
    assert (s.redis("EXISTS", "i:q"), s.redis("EXISTS", "i:p")) == (0, 1)
    assert s.step("e1", 0, idle=True, asleep=2, queues=["q", "p"])[2] == -1
    assert s.redis("EXISTS", "i:p") == 0
    s.now += 1000
    assert s.step("e1", 1, queues=[("q", 0)])[2:4] == [-1, []]
    assert s.list() == [job], "what is due moves for the others"


@scenario
def who_was_not_asleep_wakes_nobody(s: Script) -> None:
    s.join()
    s.join("e2")
    with Ear(s, "e2") as ear:
        s.put(count=3)
        s.claim("e2", 1, idle=True, queues=["p"])
        s.redis("SADD", "i:q", "e2")
        assert len(s.claim("e1", 1)) == 1
        assert ear.heard() == []
        assert len(s.claim("e1", 1, asleep=2)) == 1
        assert ear.heard() == [("e2", b"wq")]


@scenario
def who_took_all_wakes_nobody(s: Script) -> None:
    s.join()
    s.join("e2")
    with Ear(s, "e2") as ear:
        s.put(count=3)
        s.redis("SADD", "i:q", "e2")
        assert len(s.claim("e1", 4, asleep=2)) == 3
        s.claim("e1", 0, asleep=2)
        assert ear.heard() == []


@scenario
def an_inbox_that_nobody_reads_is_passed_over(s: Script) -> None:
    s.join()
    with Ear(s, "e1") as ear:
        s.redis("SADD", "i:q", "dead1", "dead2", "dead3", "e1")
        s.put(count=1)
        assert ear.heard() == [("e1", b"wq")]
        s.redis("SADD", "i:q", "dead1")
        s.put(count=1)
        assert s.redis("EXISTS", "i:q") == 0


@scenario
def a_nearer_due_time_wakes(s: Script) -> None:
    s.join()
    with Ear(s, "e1") as ear:
        for delay, wakes in ((5, 1), (6, 0), (4, 1)):
            s.redis("SADD", "i:q", "e1")
            s.put(s.job(delay_s=delay))
            assert len(ear.heard()) == wakes


# ------------------------------------------------------------------------------------------------ who waits


@scenario
def who_waits_is_told(s: Script) -> None:
    s.join()
    ids = s.put(count=3)
    s.claim("e1", 3)
    assert s.fcall("wait", "in1", *ids, "nobody") == [b"", b"", b"", None]
    s.fcall("wait", "in1", ids[0])
    s.fcall("wait", "in2", ids[0])
    assert s.note(ids[0]) == {"w": ["in1", "in2"]}
    with Ear(s, "in1", "in2") as ear:
        s.step("e1", 0, (ids[1], "f", 60, b"y" * 4096), runs=[("q", 60, [(ids[0], b"x"), (ids[2], b"z" * 4097)])])
        told = ear.heard()
    first = b"vs" + ids[0].encode() + b" x"
    assert sorted(told) == sorted(
        [
            ("in1", first),
            ("in2", first),
            ("in1", b"o" + ids[2].encode()),
            ("in1", b"vf" + ids[1].encode() + b" " + b"y" * 4096),
        ]
    )
    assert s.hash("x") == {}
    assert s.fcall("wait", "in1", ids[0]) == [b"sx"]
    assert s.hash("x") == {}


@scenario
def a_wait_survives_a_retry(s: Script) -> None:
    s.join()
    (id,) = s.put(count=1)
    s.fcall("wait", "in1", id)
    s.claim("e1", 1)
    s.claim("e1", 0, (id, "r", 0, b"why"))
    assert s.note(id) == {"w": ["in1"], "a": 1, "e": "why"}


@scenario
def to_look_leaves_no_trace(s: Script) -> None:
    ids = s.put(count=1)
    assert s.look(*ids, "nobody", "nobody.1:2") == [b"", None, None]
    assert s.hash("x") == {}


# ------------------------------------------------------------------------------------------------ cancel and find


@scenario
def cancel_where_it_waits(s: Script) -> None:
    s.join()
    queued, running = s.put(count=2, queue="p")
    (delayed,) = s.put(s.job(delay_s=60, queue="p"))
    s.claim("e1", 1, queues=["p"])
    retrying = queued
    s.claim("e1", 0, (retrying, "r", 90))
    (queued,) = s.put(count=1, queue="p")
    assert s.cancel(delayed) == "scheduled"
    assert s.cancel(retrying) == "retrying"
    assert s.redis("ZCARD", "d:p") == 0
    assert s.cancel(queued) == "queued"
    assert s.look(delayed, retrying, queued) == [b"c"] * 3
    assert ttl_of(s, f"f:{queued}") == CANCELLED_TTL
    assert s.hash("x") == {}
    assert s.claim("e1", 9, queues=["p"]) == [running]
    assert s.cancel(queued) == "c"
    assert s.cancel("nobody") is None
    assert s.counts("p") == {"n": 4, "c": 3, "r": 1}


@scenario
def cancel_where_it_runs(s: Script) -> None:
    s.join("e0")
    s.join()
    for op in "rzpu":
        (id,) = s.put(count=1)
        s.claim("e1", 1)
        with Ear(s, "e0", "e1") as ear:
            assert s.cancel(id) == "running"
            assert ear.heard() == [("e1", b"c" + id.encode())]
        assert s.note(id) == {"c": 1}
        assert s.state(id) == "running"
        assert (s.fcall("asked", "e1"), s.fcall("asked", "e0")) == ([id.encode()], [])
        s.claim("e1", 0, (id, op, 5, b"why"))
        assert s.look(id) == [b"c"]
        assert ttl_of(s, f"f:{id}") == CANCELLED_TTL
        assert s.hash("x") == {}
    (id,) = s.put(count=1)
    s.claim("e1", 1)
    s.cancel(id)
    s.claim("e1", 0, (id, "s", 60, b"faster"))
    assert s.look(id) == [b"sfaster"]
    parent, (child,) = s.parent(1, "e0")
    (other,) = s.put(count=1)
    assert s.claim("e1", 2) == [child, other]
    assert s.fcall("asked", "e1") == []
    s.cancel(parent)
    assert s.fcall("asked", "e1") == [child.encode()]


@scenario
def what_find_tells(s: Script) -> None:
    s.join()
    (first,) = s.put(count=1)
    s.now += 5
    s.claim("e1", 1)
    (second,) = s.put(count=1)
    assert s.find(first) == [b"running", pack_body(s.job(first)), None, b"%d" % s.now, None, [None] * 6]
    assert s.find(second) == [b"queued", pack_body(s.job(second)), None, 0, None, [None] * 6]
    assert s.fcall("find", "nobody", second)[0] == []
    s.claim("e1", 0, (first, "r", 5, b"why"))
    state, _, note, due, _, _ = s.find(first)
    assert (state, due) == (b"retrying", b"%d" % (s.now + 5))
    assert read_note(note) == Note(attempts=1, error="why")


@scenario
def what_depth_tells(s: Script) -> None:
    s.join()
    s.join("e2")
    low, high, gone = s.put(count=1, priority=0), s.put(count=3, priority=9), s.put(count=1)
    s.put(s.job(delay_s=5), s.job(delay_s=5))
    s.cancel(gone[0])
    s.claim("e1", 2)
    s.step("e1", 0, (high[0], "r", 0), runs=[("q", 9, [(high[1], b"")])])
    now, running, workers, queues = s.fcall("depth", "q", "p")
    assert (now, running) == (s.now, 0)
    assert s.claim("e2", 1) == [high[2]]
    now, running, workers, queues = s.fcall("depth", "q", "p")
    assert running == 1
    cards = dict(zip(workers[::3], map(msgspec.msgpack.decode, workers[1::3]), strict=True))
    assert dict(zip(workers[::3], workers[2::3], strict=True)) == {b"e1": 0, b"e2": 1}
    assert cards.keys() == {b"e1", b"e2"}
    assert cards[b"e1"]["host"] == "host"
    (queued, scheduled, heads, counters, switches), other = queues
    assert switches == [None, None]
    assert (queued, scheduled) == (2, 2)
    assert heads == [low[0].encode(), *[None] * 4, gone[0].encode(), *[None] * 3, high[0].encode()]
    assert counters == [b"7", b"1", None, b"1", None, b"1", None, None]
    assert other == [0, 0, [None] * 10, [None] * 8, [None] * 2]


# ------------------------------------------------------------------------------------------------ epochs


@scenario
def beats_and_sweepers(s: Script) -> None:
    for epoch, lease in (("e1", 2000), ("e2", 3000), ("e3", 4000)):
        s.join(epoch, lease_ms=lease)
    assert s.hash("b") == {"e1": b"0:0:2000", "e2": b"0:0:3000", "e3": b"0:0:4000"}
    s.claim("e1", 1)
    _, beats = s.fcall("beat", "e1", 1)
    assert dict(zip(beats[::2], beats[1::2], strict=True))[b"e1"] == b"1:1:2000"
    assert len(s.fcall("beat", "e2", 1)) == 2
    assert s.fcall("beat", "e3", 1) == [1]
    assert len(s.fcall("beat", "e1", 1)) == len(s.fcall("beat", "e2", 1)) == 2
    assert (ttl_of(s, "k:1"), ttl_of(s, "k:2")) == (2, 3)
    s.redis("DEL", "k:1")
    assert len(s.fcall("beat", "e3", 1)) == 2
    assert s.hash("b")["e3"] == b"0:2:4000"
    assert s.fcall("beat", "nobody", 1) == [-1]
    s.redis("DEL", "k:1")
    s.redis("DEL", "k:2")
    assert s.fcall("beat", "e1", 0) == [1]
    assert not s.names() & {"k:1", "k:2"}, "who does not look takes no office"


@scenario
def who_is_alone_looks_when_others_join(s: Script) -> None:
    s.join("h1", lease_ms=2000)
    assert s.fcall("beat", "h1", 2) == [1]
    assert not s.names() & {"k:1"}
    for epoch in ("e2", "e3"):
        s.join(epoch, lease_ms=2000)
    s.join("e2", lease_ms=2000)
    assert s.hash("b") == {"h1": b"0:1!:2000", "e2": b"0:0:2000", "e3": b"0:0:2000"}
    s.claim("h1", 1)
    for epoch in ("e2", "e3"):
        s.fcall("beat", epoch, 1)
    for look in (0, 1, 2):
        assert s.fcall("beat", "h1", look) == [1]
    assert s.hash("b")["h1"] == b"1:4!:2000", "it is not told until it has an office"
    s.redis("DEL", "k:2")
    _, beats = s.fcall("beat", "h1", 2)
    assert dict(zip(beats[::2], beats[1::2], strict=True))[b"h1"] == b"1:5:2000"
    assert s.fcall("beat", "h1", 2) == [1]
    s.join("e4")
    assert s.hash("b")["h1"] == b"1:6:2000", "it was not alone"
    for epoch in ("e2", "e3", "e4"):
        s.reap(epoch)
    for _ in range(2):
        s.join("e2")
        assert s.hash("b")["h1"] == b"1:6!:2000", "once is enough"
        s.reap("e2")
    s.reap("h1")
    s.join("e1")
    s.join("e2")
    assert s.hash("b")["e1"] == b"0:0:10000", "it would not understand that"


@scenario
def sweepers_wake_the_idle_where_something_waits(s: Script) -> None:
    for epoch in ("e1", "e2"):
        s.join(epoch)
    ids = s.put(count=1), s.put(count=1, queue="p")
    s.put(s.job(queue="d:d", delay_s=1))
    s.put(s.job(queue="later", delay_s=2))
    s.fcall("switch", "p", "p", 1)
    s.fcall("switch", "bound", "b", 1)
    s.now += 1000
    queues = ["q", "p", "d:d", "later", "bound"]
    with Ear(s, "e1") as ear:
        for queue in queues:
            s.redis("SADD", f"i:{queue}", "e1")
        assert s.fcall("beat", "e2", 0) == [1]
        assert ear.heard() == []
        assert len(s.fcall("beat", "e2", 1)) == 2
        assert sorted(ear.heard()) == [("e1", b"wd:d"), ("e1", b"wq")]
        assert [s.redis("EXISTS", f"i:{queue}") for queue in queues] == [0, 1, 0, 1, 1]
    assert s.claim("e1", 9, queues=["q", "d:d"])[:1] == ids[0]


@scenario
def only_who_stands_still_is_reaped(s: Script) -> None:
    s.join()
    seen = s.hash("b")["e1"]
    s.fcall("beat", "e1", 1)
    assert s.reap("e1", seen) == -1
    seen = s.hash("b")["e1"]
    s.claim("e1", 1)
    assert s.reap("e1", seen) == -1
    assert s.reap("e1", s.hash("b")["e1"]) == 0
    assert s.reap("e1", seen) == -1
    assert s.reap("nobody") == -1


@scenario
def the_reaped_leaves_its_jobs_in_order(s: Script) -> None:
    s.join("e1", ["p", "q"])
    ids = s.put(count=12)
    s.claim("e1", 10)
    s.claim("e1", 5, queues=["p"], idle=True)
    s.redis("SADD", "i:q", "e1", "e2")
    assert s.reap() == 10
    assert s.list() == ids
    assert s.counts() == {"n": 12, "d": 10}
    assert s.note(ids[0]) == {"d": 1}
    assert s.redis("EXISTS", "i:p") == 0
    assert not s.names() & {"b", "a:e1"}
    s.join("e2", ["q"])
    answer = s.step("e2", 1)
    assert read_note(answer[5][0]).deliveries == 1
    s.redis("SADD", "i:q", "e2")
    s.redis("SADD", "i:q", "e3")
    assert s.reap("e2", crashed=False) == 1
    assert s.note(ids[0]) == {"d": 1}
    assert s.counts() == {"n": 12, "d": 10}


@scenario
def the_reaped_is_no_longer_idle(s: Script) -> None:
    s.join("e1", ["p", "q"])
    s.claim("e1", 1, idle=True, queues=["p", "q"])
    assert s.reap() == 0
    assert not s.names() & {"i:p", "i:q"}


@scenario
def a_job_that_kills_its_workers(s: Script) -> None:
    (id,) = s.put(s.job(payload=pack_call("shop.charge", (1,), {})))
    (other,) = s.put(s.job(payload=b"no call", options={"max_deliveries": 1 - APART}))
    (unread,) = s.put(s.job(options={"odd": b"bytes"}))
    with Ear(s, "in1") as ear:
        s.fcall("wait", "in1", id)
        for n, held in ((1, 3), (2, 2)):
            s.join()
            assert len(s.claim("e1", 9)) == held
            if n == 2:
                s.redis("HSET", "x", id, msgspec.msgpack.encode({"d": 1, "a": 4, "w": ["in1"]}))
            assert s.reap(most=2) == held
        (told,) = ear.heard()
    assert told[1].startswith(b"vf" + id.encode())
    letter, record, body, deliveries = s.find(id)
    assert (body, deliveries) == (pack_body(s.job(id, payload=pack_call("shop.charge", (1,), {}))), b"2")
    assert (letter, ttl_of(s, f"f:{id}")) == (b"f", FAILED_TTL)
    assert unpack_record(record) == Record(
        task="shop.charge",
        attempt=5,
        ended_s=s.now / 1000,
        reason="worker_lost",
        error_text="2 workers died with this job in hand",
        queue="q",
    )
    assert unpack_record(s.find(other)[1]).task == ""
    assert s.state(unread) == "f"
    assert s.counts() == {"n": 3, "f": 3, "d": 2}
    assert s.hash("x") == {}
    assert s.list() == []


@scenario
def reaping_ends_what_was_to_stop(s: Script) -> None:
    s.join()
    (id,) = s.put(count=1)
    s.claim("e1", 1)
    s.cancel(id)
    assert s.reap() == 1
    assert s.look(id) == [b"c"]
    assert ttl_of(s, f"f:{id}") == CANCELLED_TTL
    assert s.counts() == {"n": 1, "c": 1}
    assert s.list() == []
    assert s.hash("x") == {}


@scenario
def reaping_parks_what_is_broken(s: Script) -> None:
    s.join()
    ids = s.put(count=3)
    s.claim("e1", 3)
    s.redis("HSET", "e", ids[1], "")
    assert s.reap() == 3
    assert s.list() == [ids[0], ids[2]]
    assert set(s.hash("p")) == {ids[1]}


# ------------------------------------------------------------------------------------------------ enqueue


@scenario
def a_call_is_applied_once(s: Script) -> None:
    jobs = [s.job(), s.job(delay_s=5)]
    known = s.job()
    assert s.send(known) == [1, b""]
    assert s.send(known, *jobs, s.job("0" * 26 + ".1"), seq=2) == [1, b"0k,3c"]
    before = s.hash("c")
    assert s.send(known, *jobs, s.job("0" * 26 + ".1"), seq=2) == [1, b"0k,3c"]
    assert s.send(s.job(), seq=1) == [-4]
    assert ttl_of(s, "w:lane") == 3600
    s.redis("EXPIRE", "w:lane", 9)
    assert s.send(known, *jobs, s.job("0" * 26 + ".1"), seq=2) == [1, b"0k,3c"], "also after a late copy of another"
    assert s.hash("c") == before == {"q:n": b"3"}
    assert ttl_of(s, "w:lane") == 3600
    assert s.send(s.job(), seq=9) == [1, b""]
    assert s.send(s.job(), seq=1, lane="other") == [1, b""]


@scenario
def an_id_is_known_while_it_lives_or_its_result(s: Script) -> None:
    s.join()
    ids = s.put(count=4)
    s.claim("e1", 3)
    s.step("e1", 0, (ids[1], "f", 60), runs=[("q", 60, [(ids[0], b"")])])
    fresh = s.new_ids(1)[0]
    for more in ({}, {"delay_s": 60}):
        assert s.send(*(s.job(id, **more) for id in ids)) == [1, b"0k,1k,2k,3k"]
        assert [s.send(s.job(id, **more)) for id in ids] == [[1, b"0k"]] * 4
    run = [word for id in (ids[0], ids[0]) for word in (id, pack_body(s.job(id)))]
    assert s.fcall("enqueue", "result", 1, "q", 5, 2, *run) == [1, b"0k,1k"], "by its result alone"
    run = [word for id in [*ids, fresh, fresh] for word in (id, pack_body(s.job(id)))]
    assert s.fcall("enqueue", "other", 1, "q", 5, 6, *run) == [1, b"0k,1k,2k,3k,5k"]
    assert s.counts() == {"n": 5, "s": 1, "f": 1}
    assert s.list() == [ids[3], fresh]
    s.new_ids(64)  # of other buckets
    (last,) = s.put(count=1)
    s.cancel(last)
    run = [word for id in (last, *s.new_ids(1)) for word in (id, pack_body(s.job(id)))]
    assert s.fcall("enqueue", "third", 1, "q", 5, 2, *run) == [1, b"0k"]


@scenario
def one_of_a_key_at_a_time(s: Script) -> None:
    s.join()

    def ask(**more: object) -> tuple[str, bytes]:
        job = s.job(options={"unique": "k"}, **more)
        return job.id, s.send(job)[1]

    first, said = ask()
    assert said == b""
    twin = b"0u" + first.encode()
    assert ask()[1] == ask(queue="p", delay_s=5)[1] == twin
    assert s.send(s.job(first, options={"unique": "k"}))[1] == b"0k"
    lane = s._lane
    _, said = ask()
    assert s.send(s.job(), seq=lane + 1)[1] == said == twin, "said once more, word for word"
    assert s.send(s.job(options={"unique": "other"}), s.job())[1] == b""
    assert s.cancel(first) == "queued"
    assert s.names() >= {"u"}
    second, said = ask()
    assert said == b""
    assert ask()[1] == b"0u" + second.encode()
    s.redis("HDEL", "e", second)
    third, said = ask()
    assert said == b"", "a key whose job is gone is free"
    assert third in s.claim("e1", 9)
    for op in "rs":
        assert ask()[1] == b"0u" + third.encode()
        s.step("e1", 0, (third, op, 0))
        if op == "r":
            assert s.claim("e1", 1) == [third]
    assert s.hash("u").keys() == {"other"}


@scenario
def calls_of_many_runs(s: Script) -> None:
    ids = s.new_ids(5)
    words = [[id, pack_body(s.job(id))] for id in ids]
    args = ["q", 5, 2, *words[0], *words[1], "q", 5, 0, *words[2], 5, 0, "", "p", 9, 1, *words[3]]
    args += ["q", 5, 0, *words[2], 0, 0, "", "q", 5, 2, *words[4], *words[0]]
    assert s.fcall("enqueue", "lane", 1, *args) == [1, b"4k,6k"]
    assert s.list() == [ids[0], ids[1], ids[4]]
    assert s.list("p", 9) == [ids[3]]
    assert s.redis("ZCARD", "d:q") == 1


@scenario
def a_thousand_in_a_run(s: Script) -> None:
    ids = s.new_ids(3000)
    words = [word for id in ids for word in (id, pack_body(s.job(id)))]
    assert s.fcall("enqueue", "lane", 1, "q", 5, 3000, *words) == [1, b""]
    assert s.list() == ids
    assert s.redis("HLEN", "e") == 3000


# ------------------------------------------------------------------------------------------------ parents and children


@scenario
def a_parent_waits_for_its_children(s: Script) -> None:
    parent, ids = s.parent(2)
    s.join()
    assert s.held("feeder") == {parent}
    assert s.hash("a:feeder")[parent] == b"%d" % s.now
    assert s.find(parent)[5] == [b"2", b"0", b"0", b"0", b"0", b"open"]
    assert s.state(parent) == "running"
    s.now += 7
    assert s.claim("feeder", 0, (parent, "b")) == []
    assert s.held("feeder") == set()
    state, _, _, since, _, children = s.find(parent)
    assert (state, since, children[4:]) == (b"blocked", b"%d" % START_MS, [b"1", b"wait"])
    assert s.claim("e1", 9) == ids
    s.claim("e1", 0, (ids[0], "s", 70, b"A"))
    assert s.state(parent) == "blocked"
    assert s.look(*ids) == [b"sA", b""]
    assert s.claim("e1", 9, (ids[1], "s", 30, b"B")) == [parent]
    assert s.find(parent)[5] == [b"2", b"2", b"0", b"100", b"1", b"over"]
    assert s.hash(f"o:{parent}") == {"0": b"sA", "1": b"sB"}
    assert s.redis("PTTL", f"o:{parent}") == -1
    assert s.counts() == {"n": 3, "s": 2}
    assert s.send(s.job(f"{parent}.2"), s.job(ids[0])) == [1, b"0c,1k"]
    s.claim("e1", 0, (parent, "s", 60, b"all"))
    assert s.look(parent, *ids) == [b"sall", None, None]
    assert s.names() == {"b", "a:e1", "a:feeder", "c", "w:lane", f"o:{parent[:-1]}"}


@scenario
def sealed_when_all_are_done_or_there_are_none(s: Script) -> None:
    parent, ids = s.parent(1)
    s.join()
    s.claim("e1", 1)
    s.claim("e1", 0, (ids[0], "s", 1))
    assert s.state(parent) == "running"
    s.claim("feeder", 0, (parent, "b"))
    assert s.claim("e1", 9) == [parent]
    none, _ = s.parent(0, "feeder2")
    assert s.claim("feeder2", 0, (none, "b")) == []
    assert s.claim("e1", 9) == [none]


@scenario
def a_released_parent_takes_steps_of_its_reduction(s: Script) -> None:
    s.join()
    (other,) = s.put(s.job())
    s.after(other, id="w" * 26)
    s.claim("e1", 1)
    s.claim("e1", 0, (other, "o"))
    assert s.hash(f"j:{other}") == {}, "no parent, nothing to open"
    assert s.claim("e1", 1, (other, "s", 0)) == ["w" * 26]
    s.claim("e1", 0, ("w" * 26, "o"))
    assert s.hash("j:" + "w" * 26)["state"] == b"over"
    s.claim("e1", 0, ("w" * 26, "s", 0))
    parent, (first,) = s.parent(1)
    s.claim("feeder", 0, (parent, "b"))
    assert s.claim("e1", 1) == [first]
    assert s.claim("e1", 1, (first, "s", 5)) == [parent]
    s.join("e2")
    s.claim("e2", 0, (parent, "o"))
    assert s.send(s.job(f"{parent}.9")) == [1, b"0c"], "only who holds it opens it"
    s.claim("e1", 0, (parent, "o"))
    steps = s.put(*(s.job(f"{parent}.{part}") for part in (7, 8, 9)))
    assert s.find(parent)[5] == [b"1", b"1", b"0", b"5", b"1", b"open"]
    assert s.claim("e2", 1) == steps[:1]
    s.claim("e2", 0, (steps[0], "s", 0, b"R"))
    s.claim("e1", 0, (parent, "o"))
    assert s.hash(f"j:{parent}")["steps"] == b"2", "opened twice is opened once"
    assert s.reap("e1") == 1
    assert s.list() == [parent, *steps[1:]]
    s.join("e3")
    assert s.claim("e3", 1) == [parent]
    assert s.claim("e2", 1) == [], "dropped, both, for it was released as its worker died"
    assert s.hash(f"j:{parent}")["steps"] == b"0"
    s.claim("e3", 0, (parent, "o"))
    s.put(*(s.job(step) for step in steps[1:]))
    assert s.send(s.job(steps[0])) == [1, b"0k"]
    assert s.claim("e2", 2) == steps[1:]
    s.claim("e2", 0, (steps[1], "s", 0))
    s.claim("e3", 0, (parent, "b"))
    assert s.state(parent) == "blocked"
    assert s.claim("e2", 1, (steps[2], "s", 0)) == [parent]
    assert s.find(parent)[5] == [b"1", b"1", b"0", b"5", b"1", b"over"]
    s.claim("e2", 0, (parent, "o"))
    last = f"{parent}.10"
    s.put(s.job(last))
    s.claim("feeder", 1)
    s.claim("feeder", 0, (last, "f", 60, b"why"))
    assert s.held("e2") == set(), "a step that failed releases it, also out of hands"
    assert s.claim("e3", 1) == [parent]
    assert s.find(parent)[5] == [b"1", b"1", b"1", b"5", b"1", b"over"]
    s.claim("e3", 0, (parent, "s", 0))
    assert s.hash("e") == {}


@scenario
def a_failed_child_releases_its_parent(s: Script) -> None:
    for op, sealed in (("f", True), ("c", False), ("e", False)):
        parent, ids = s.parent(3, f"feeder{op}")
        s.join()
        if sealed:
            s.claim(f"feeder{op}", 0, (parent, "b"))
        assert s.claim("e1", 2) == ids[:2]
        s.claim("e1", 0, (ids[0], op, 60, b"why"))
        assert s.held(f"feeder{op}") == set()
        assert s.list() == [ids[2], parent]
        assert s.find(parent)[5] == [b"3", b"1", b"1", b"0", b"%d" % sealed, b"over"]
        assert s.send(s.job(f"{parent}.9")) == [1, b"0c"]
        s.claim("e1", 0, (ids[1], op, 60, b"too"))
        assert s.find(parent)[5][:3] == [b"3", b"2", b"2"]
        assert s.list() == [ids[2], parent], "released once"
        assert s.hash(f"o:{parent}") == {"0": op.encode() + b"why", "1": op.encode() + b"too"}
        s.fcall("wait", "in1", ids[2])
        with Ear(s, "in1") as ear:
            assert s.claim("e1", 9) == [parent], "the third is dropped"
            assert ear.heard() == [("in1", b"vc" + ids[2].encode() + b" ")]
        assert s.hash("x") == {}
        assert s.look(ids[2]) == [None]
        assert set(s.hash("e")) == {parent}
        s.claim("e1", 0, (parent, "f", 0, b""))
    assert s.counts() == {"n": 12, "f": 5, "c": 5, "e": 2}


@scenario
def who_is_first_of_two_counts(s: Script) -> None:
    parent, (one, two, three) = s.parent(3)
    s.claim("feeder", 0, (parent, "b"))
    s.join()
    s.join("e2")
    copies = [f"{one}~2", f"{two}~2", f"{three}~2"]
    assert s.claim("e1", 3) == [one, two, three]
    assert running(s, parent) == [one, two, three]
    assert s.send(*(s.job(id) for id in copies)) == [1, b""]
    assert s.find(parent)[5][:2] == [b"3", b"0"], "a copy is no child more"
    assert s.send(s.job(copies[0])) == [1, b"0k"]
    assert s.claim("e2", 2) == copies[:2]
    assert running(s, parent) == sorted([one, two, three, *copies[:2]])
    assert running(s, s.new_ids(1)[0]) == []
    s.fcall("wait", "in1", one, copies[1])
    with Ear(s, "in1", "e1", "e2") as ear:
        s.claim("e2", 0, (copies[0], "s", 7, b"quick"))
        heard = ear.heard()
        assert ("in1", b"vs" + one.encode() + b" quick") in heard
        assert [told for told in heard if told[1][:1] == b"c"] == [(e, b"c" + one.encode()) for e in ("e1", "e2")]
        assert s.look(one, copies[0]) == [b"squick", None]
        assert s.find(parent)[5][:4] == [b"3", b"1", b"0", b"7"]
        s.claim("e1", 0, (one, "s", 7, b"slow"), (two, "s", 5, b"as it is"))
        assert ("in1", b"vs" + copies[1].encode() + b" as it is") in ear.heard()
    assert s.look(one, two) == [b"squick", b"sas it is"]
    assert s.find(parent)[5][:4] == [b"3", b"2", b"0", b"12"]
    assert s.list() == copies[2:]
    s.claim("e2", 0, (copies[1], "s", 5, b"late"))
    s.claim("e1", 0, (three, "s", 1, b"3"))
    assert s.list() == [parent], "the copy that nobody has begun went from its list"
    assert s.find(parent)[5] == [b"3", b"3", b"0", b"13", b"1", b"over"]
    assert s.look(two) == [b"sas it is"]
    assert s.hash(f"o:{parent}").keys() == {"0", "1", "2"}
    assert s.counts() == {"n": 7, "s": 3, "c": 3}
    assert s.hash("x") == {}


def running(s: Script, parent: str) -> list[str]:
    return sorted(id.decode() for id in s.fcall("running", parent))


@scenario
def a_copy_that_fails_is_nothing(s: Script) -> None:
    parent, (one, two) = s.parent(2)
    s.claim("feeder", 0, (parent, "b"))
    s.join()
    s.join("e2")
    copy = f"{one}~2"
    assert s.claim("e1", 1) == [one]
    s.put(s.job(copy))
    assert s.claim("e2", 2) == [two, copy]
    s.claim("e2", 0, (copy, "f", 60, b"x"))
    assert s.find(parent)[5] == [b"2", b"0", b"0", b"0", b"1", b"wait"]
    assert s.look(one, copy) == [b"", None]
    s.put(s.job(copy))
    assert s.claim("e2", 1) == [copy]
    s.claim("e2", 0, (copy, "r", 5000, b"again"))
    assert s.redis("ZCARD", "d:q") == 1
    s.claim("e1", 0, (one, "s", 1, b"A"))
    assert s.redis("ZCARD", "d:q") == 0
    assert s.send(s.job(copy)) == [1, b"0k"], "whom would it copy?"
    assert s.find(parent)[5][:3] == [b"2", b"1", b"0"]


@scenario
def a_copy_of_one_that_waits_to_be_tried_again(s: Script) -> None:
    parent, (one,) = s.parent(1)
    s.claim("feeder", 0, (parent, "b"))
    s.join()
    copy = f"{one}~2"
    assert s.claim("e1", 1) == [one]
    s.put(s.job(copy))
    assert s.claim("e1", 5) == [], "who holds the one is not given the other"
    assert s.list() == [copy]
    s.claim("e1", 0, (one, "r", 5000, b"again"))
    assert s.claim("e1", 1) == [copy]
    assert s.claim("e1", 1, (copy, "s", 1, b"A")) == [parent]
    assert s.redis("ZCARD", "d:q") == 0
    assert s.look(one) == [b"sA"]


@scenario
def a_parent_that_failed_is_opened_anew(s: Script) -> None:
    parent, ids = s.parent(4)
    s.join()
    assert s.claim("e1", 3) == ids[:3]
    s.claim("e1", 0, (ids[0], "v", 0, b"chunk"), (ids[0], "s", 7, b"A"), (ids[1], "f", 60, b"no"))
    assert s.claim("e1", 9) == [parent]
    s.claim("e1", 0, (parent, "f", 60, b"why"), (ids[2], "v", 0, b"late"), (ids[2], "s", 7, b"late"))
    assert s.look(parent, *ids) == [b"fwhy", b"sA", b"fno", None, None]
    assert {ttl_of(s, key) for key in (f"j:{parent}", f"o:{parent}", f"z:{parent}")} == {60}
    assert s.send(s.job(f"{parent}.5")) == [1, b"0c"]
    assert s.send(s.job(parent)) == [1, b"0k"], "nobody would hold it"
    assert s.send(s.job(parent, hold="nobody")) == [1, b"0k"]
    s.join("another")
    s.redis("HSET", f"j:{parent}", "steps", 3)
    s.redis("HSET", f"o:{parent}", "100000000", "sstep")
    s.now += 9
    assert s.send(s.job(parent, hold="another")) == [1, b""]
    assert s.send(s.job(parent, hold="another")) == [1, b"0k"]
    assert s.held("another") == {parent}
    assert s.hash("a:another")[parent] == b"%d" % s.now
    assert s.find(parent)[5] == [b"1", b"1", b"0", b"7", b"0", b"open"]
    assert s.hash(f"o:{parent}") == {"0": b"sA", "0:0": b"schunk"}
    family = s.hash(f"j:{parent}")
    assert family.keys() == {"state", "holder", "started", "total", "done", "failed", "units", "sealed"}
    assert (family["started"], family["holder"]) == (b"%d" % s.now, b"another")
    assert {s.redis("PTTL", key) for key in (f"j:{parent}", f"o:{parent}")} == {-1}
    assert not s.redis("EXISTS", f"z:{parent}", f"f:{parent}")
    assert listed(s, "y:b") == [parent]
    assert s.send(*(s.job(id) for id in ids)) == [1, b"0k"]
    assert s.find(parent)[5][:2] == [b"4", b"1"]
    s.claim("another", 0, (parent, "b"))
    s.join("e2")
    assert s.claim("e2", 9) == ids[1:]
    assert s.claim("e2", 9, *((id, "s", 1, b"B") for id in ids[1:])) == [parent]
    assert s.find(parent)[5] == [b"4", b"4", b"0", b"10", b"1", b"over"]
    s.claim("e2", 0, (parent, "s", 0))
    assert s.counts()["n"] == 9
    assert not {name for name in s.names() if name[:2] in ("j:", "o:", "z:")}


@scenario
def a_failed_job_that_is_no_parent_is_not_opened(s: Script) -> None:
    s.join()
    (id,) = s.put(count=1)
    s.claim("e1", 1)
    s.claim("e1", 0, (id, "f", 60, b"x"))
    assert s.send(s.job(id, hold="e1")) == [1, b"0k"]


@scenario
def what_a_failed_parent_leaves_goes_in_a_day(s: Script) -> None:
    for number in (FAILED_TTL, 60):
        parent, (child, _) = s.parent(2)
        s.join()
        s.claim("e1", 1)
        s.claim("e1", 0, (child, "s", 1, b"A"))
        s.claim("feeder", 0, (parent, "f", number, b"the submitter failed"))
        lives = {ttl_of(s, key) for key in (f"j:{parent}", f"o:{parent}", f"z:{parent}")}
        assert lives == {min(number, 86400)}
        assert s.send(s.job(f"{parent}.1")) == [1, b"0k"]
        assert s.send(s.job(f"{parent}.2")) == [1, b"0c"], "it takes no more, though it never was released"
        assert s.claim("e1", 9) == []


@scenario
def a_child_that_cannot_be_dropped_is_parked(s: Script) -> None:
    parent, ids = s.parent(1)
    s.join()
    s.cancel(parent)
    s.redis("HSET", "x", ids[0], b"\xc1")
    assert s.claim("e1", 9) == []
    assert set(s.hash("p")) == {ids[0]}


@scenario
def children_of_a_parent_that_is_gone(s: Script) -> None:
    parent, ids = s.parent(3)
    s.join()
    s.claim("feeder", 0, (parent, "b"))
    assert s.claim("e1", 2) == ids[:2]
    with Ear(s, "e1", "feeder") as ear:
        assert s.cancel(parent) == "blocked"
        assert sorted(ear.heard()) == [("e1", b"c" + parent.encode()), ("feeder", b"c" + parent.encode())]
    assert s.look(parent, *ids) == [b"c", b"", b"", b""]
    s.claim("e1", 0, (ids[0], "s", 1, b"x"), (ids[1], "v", 0, b"chunk"), (ids[1], "f", 60, b"x"))
    assert s.look(*ids) == [None, None, b""]
    assert s.claim("e1", 9) == []
    assert s.counts() == {"n": 4, "s": 1, "f": 1, "c": 2}
    assert s.names() == {"b", "a:e1", "a:feeder", "c", "w:lane", f"f:{parent}"}
    assert s.send(s.job(f"{parent}.7")) == [1, b"0c"]


@scenario
def cancel_a_parent_in_its_feeders_hands(s: Script) -> None:
    parent, ids = s.parent(1)
    with Ear(s, "feeder") as ear:
        assert s.cancel(parent) == "running"
        assert ear.heard() == [("feeder", b"c" + parent.encode())]
    assert s.held("feeder") == set()
    assert s.look(parent) == [b"c"]
    s.claim("feeder", 0, (parent, "b"))
    assert s.names() == {"b", "a:feeder", "c", "w:lane", f"f:{parent}", "e", "r:q:5", "m"}
    assert set(s.hash("e")) == set(ids)


@scenario
def cancel_a_parent_that_reduces(s: Script) -> None:
    parent, _ = s.parent(0)
    s.join()
    s.claim("feeder", 0, (parent, "b"))
    s.claim("e1", 1)
    with Ear(s, "e1", "feeder") as ear:
        assert s.cancel(parent) == "running"
        assert ear.heard() == [("e1", b"c" + parent.encode())]
    assert s.note(parent) == {"c": 1}
    assert s.held() == {parent}


@scenario
def cancel_a_child(s: Script) -> None:
    parent, ids = s.parent(2)
    assert s.cancel(ids[1]) == "queued"
    assert s.look(*ids) == [b"", b"c"]
    assert s.list() == [*ids, parent]


@scenario
def a_feeder_that_is_gone(s: Script) -> None:
    for crashed in (True, False):
        parent, ids = s.parent(1)
        assert s.reap("feeder", crashed=crashed) == 1
        assert s.list() == [parent, *ids]
        assert s.find(parent)[5] == [b"1", b"0", b"0", b"0", b"0", b"over"]
        assert s.send(s.job(f"{parent}.1")) == [1, b"0c"]
        s.join()
        assert s.claim("e1", 9) == [parent]
        s.claim("e1", 0, (parent, "f", 0))


@scenario
def who_feeds_and_works_is_gone(s: Script) -> None:
    parent, _ = s.parent(0)
    s.put(s.job(f"{parent}.0", options={"max_deliveries": 1 - APART}))
    assert s.claim("feeder", 1) == [f"{parent}.0"]
    assert s.reap("feeder") == 2
    assert s.list() == [parent], "released by its child, and not given back once more"
    assert s.note(parent) == {}
    assert s.find(parent)[5] == [b"1", b"1", b"1", b"0", b"0", b"over"]


@scenario
def a_released_parent_takes_no_more(s: Script) -> None:
    parent, _ = s.parent(1)
    s.claim("feeder", 0, (parent, "u"))
    assert s.find(parent)[5][5] == b"over"
    assert s.list()[0] == parent


@scenario
def who_may_hold(s: Script) -> None:
    assert s.send(s.job(hold="nobody")) == [1, b"0c"]
    assert s.names() == {"w:lane"}
    parent, _ = s.parent(0)
    assert s.send(s.job(f"{parent}.0"), s.job(f"{parent}.0"), s.job(f"{parent}.1", hold="nobody")) == [1, b"1k,2c"]
    assert s.find(parent)[5][0] == b"1"


@scenario
def chunks_lie_with_the_parent(s: Script) -> None:
    parent, ids = s.parent(2)
    s.join()
    s.join("e2")
    s.claim("e1", 1)
    s.claim("e2", 0, (ids[0], "v", 7, b"not mine"))
    s.claim("e1", 0, (ids[0], "v", 0, b"AA"), (ids[0], "v", 12, b"BB"))
    assert s.held() == {ids[0]}
    s.claim("e1", 0, (ids[0], "s", 5, b"2"))
    assert s.hash(f"o:{parent}") == {"0:0": b"sAA", "0:12": b"sBB", "0": b"s2"}
    assert s.look(f"{ids[0]}:0", f"{ids[0]}:12", f"{ids[0]}:7") == [b"sAA", b"sBB", None]


@scenario
def delayed_children(s: Script) -> None:
    parent, _ = s.parent(0)
    s.join()
    s.put(s.job(f"{parent}.0", delay_s=5))
    assert s.find(parent)[5][0] == b"1"
    assert s.state(f"{parent}.0") == "scheduled"


@scenario
def a_parent_may_be_retried(s: Script) -> None:
    parent, ids = s.parent(1)
    s.join()
    s.claim("feeder", 0, (parent, "b"))
    s.claim("e1", 1)
    s.claim("e1", 1, (ids[0], "s", 1, b"part"))
    s.claim("e1", 0, (parent, "r", 0, b"why"))
    assert s.look(ids[0]) == [b"spart"]
    assert s.claim("e1", 1) == [parent]


# ------------------------------------------------------------------------------------------------ jobs that wait for jobs


@scenario
def a_job_waits_for_others(s: Script) -> None:
    s.join()
    a, b = s.put(count=2)
    s.now += 3
    (last,) = s.put(s.job(after=(a, b)))
    assert s.list() == [a, b]
    assert s.counts() == {"n": 3}
    state, _, note, since, error, counts, waits = s.find(last)
    assert (state, note, since, error) == (b"blocked", None, b"%d" % s.now, None)
    assert counts == [b"2", b"0", b"0", b"0", b"1", b"wait"]
    assert waits == [a.encode(), b.encode()]
    assert s.hash("x").keys() == {a, b}
    assert s.claim("e1", 9) == [a, b]
    s.now += 1
    assert s.claim("e1", 9, runs=[("q", 60, [(b, b"B")])]) == []
    assert s.find(last)[5:] == [[b"2", b"1", b"0", b"0", b"1", b"wait"], [a.encode()]]
    assert s.redis("EXISTS", f"n:{b}") == 0
    assert s.claim("e1", 9, (a, "s", 60, b"A")) == [last], "in the very step that settles the last"
    assert s.find(last)[5:] == [[b"2", b"2", b"0", b"0", b"1", b"over"], []]
    assert s.redis("EXISTS", f"o:{last}") == 0, "it does not ask how they ended"
    s.claim("e1", 0, (last, "s", 60, b"C"))
    assert s.names() == {"b", "a:e1", "c", "w:lane", f"o:{a[:-1]}"}


@scenario
def what_a_job_is_given_outlives_where_it_came_from(s: Script) -> None:
    s.join()
    a, b = s.put(count=2)
    s.claim("e1", 2)
    last = s.after(b, a, inputs=2)
    one = s.after(a, input=1)
    s.claim("e1", 0, runs=[("q", 0, [(a, b"A")])])
    assert s.look(a) == [None]
    assert s.claim("e1", 9, (b, "s", 0, b"B")) == [one, last]
    assert s.look(f"{last}.0", f"{last}.1", f"{one}.0") == [b"sB", b"sA", b"sA"]
    s.claim("e1", 0, (last, "r", 0, b"why"))
    assert s.look(f"{last}.0") == [b"sB"]
    s.claim("e1", 0, (one, "s", 0), *((id, "s", 0) for id in s.claim("e1", 1)))
    assert s.names() <= {"b", "a:e1", "c", "w:lane", "m"}


@scenario
def after_what_is_over(s: Script) -> None:
    s.join()
    a, b, c = s.put(count=3)
    s.claim("e1", 3)
    s.claim("e1", 0, (b, "f", 60, b"x"), (c, "e", 60, b"x"), runs=[("q", 60, [(a, b"A")])])
    first = s.after(a, input=1)
    assert s.list() == [first]
    assert s.look(f"{first}.0") == [b"sA"]
    failed = s.after(a, b)
    assert s.state(failed) == "f"
    both = s.after(b, c, inputs=2, allow_failure=True)
    assert s.list() == [first, both]
    assert s.find(both)[5] == [b"2", b"2", b"2", b"0", b"1", b"over"]
    assert s.look(f"{both}.0", f"{both}.1") == [b"fx", b"ex"]
    assert s.note(a) == {}


@scenario
def after_what_nobody_knows(s: Script) -> None:
    (a,) = s.put(count=1)
    before = s.names(), s.hash("x")
    self = s.new_ids(1)[0]
    assert s.send(s.job(after=(a, "nobody.7"), options={"unique": "k"}), s.job()) == [1, b"0mnobody.7"]
    assert s.send(s.job(self, after=(self,), options={"x": 1})) == [1, b"0m" + self.encode()]
    assert (s.names(), s.hash("x")) == before
    assert s.send(s.job(a, after=(a,), options={"x": 1})) == [1, b"0k"]


@scenario
def who_fails_fails_its_followers(s: Script) -> None:
    for how, op in {"failed": "f", "was cancelled": "c", "has expired": "e"}.items():
        s.join()
        a, b = s.put(s.job(payload=pack_call("t", (), {})), s.job())
        second = s.after(b, a, payload=pack_call("shop.total", (), {}))
        third = s.after(second, payload=pack_call("u", (), {}))
        s.claim("e1", 2)
        with Ear(s, "me") as ear:
            s.fcall("wait", "me", third)
            s.now += 1500
            s.claim("e1", 0, (a, op, 60, b"x"))
            ((inbox, news),) = ear.heard()
        assert (inbox, news[:28]) == ("me", b"vf" + third.encode())
        for id, task in ((second, "shop.total"), (third, "u")):
            (said,) = s.look(id)
            assert said[:1] == b"f"
            record = unpack_record(said[1:])
            text = f"job {a} {how}"
            assert record == Record(task, ended_s=s.now / 1000, reason="dependency", error_text=text, queue="q")
            assert ttl_of(s, f"f:{id}") == FAILED_TTL
        assert {key for key in s.names() if key[:2] == "n:"} == {f"n:{b}"}
        assert s.claim("e1", 9, (b, "s", 0)) == []
        assert not {key for key in s.names() if key[:2] == "n:"}
        assert s.reap(crashed=False) == 0
    assert s.counts() == {"n": 12, "f": 7, "c": 1, "e": 1, "s": 3}


@scenario
def a_follower_that_allows_failure(s: Script) -> None:
    s.join()
    a, b = s.put(count=2)
    last = s.after(a, b, inputs=2, allow_failure=True)
    s.claim("e1", 2)
    s.claim("e1", 0, (a, "f", 60, b"x"))
    assert s.find(last)[5:] == [[b"2", b"1", b"1", b"0", b"1", b"wait"], [b.encode()]]
    assert s.claim("e1", 9, (b, "s", 60, b"B")) == [last]
    assert s.look(f"{last}.0", f"{last}.1") == [b"fx", b"sB"]


@scenario
def a_blocked_job_is_cancelled(s: Script) -> None:
    s.join()
    (a,) = s.put(count=1)
    middle = s.after(a, inputs=1)
    last = s.after(middle)
    assert s.cancel(middle) == "blocked"
    assert s.look(middle, last)[0] == b"c"
    assert s.state(last) == "f"
    assert not {key for key in s.names() if key[:2] in {"h:", "j:"}} - {f"h:{last}", f"j:{last}"}
    assert s.list() == [a]
    s.claim("e1", 1)
    assert s.claim("e1", 9, (a, "s", 0)) == []
    assert s.hash("p") == {}
    assert s.counts() == {"n": 3, "c": 1, "f": 1, "s": 1}


@scenario
def a_follower_that_runs_is_asked_to_stop(s: Script) -> None:
    s.join()
    (a,) = s.put(count=1)
    last = s.after(a)
    s.claim("e1", 1)
    assert s.claim("e1", 1, (a, "s", 0)) == [last]
    assert s.cancel(last) == "running"
    assert s.held() == {last}
    s.claim("e1", 0, (last, "u"))
    assert s.look(last) == [b"c"]
    assert s.hash("p") == {}


@scenario
def whatever_ends_a_job_lets_its_followers_hear(s: Script) -> None:
    s.join()
    (a,) = s.put(count=1)
    waits = s.after(a)
    assert s.cancel(a) == "queued"
    assert s.state(waits) == "f"
    (b,) = s.put(s.job(options={"max_deliveries": 1 - APART}))
    waits = s.after(b)
    s.claim("e1", 1)
    s.reap()
    assert s.state(waits) == "f"
    parent, ids = s.parent(1)
    waits, child = s.after(parent, input=1), s.after(ids[0], allow_failure=True)
    s.cancel(parent)
    assert s.state(waits) == "f"
    s.join("e2")
    assert s.claim("e2", 9) == []
    assert s.claim("e2", 9) == [child], "whose former was dropped where it would have been claimed"


@scenario
def a_job_that_others_wait_for_keeps_its_note(s: Script) -> None:
    s.join()
    a, b = s.put(count=2)
    s.claim("e1", 1)
    s.claim("e1", 0, (a, "r", 0, b"why"))
    last = s.after(a, b)
    second = s.after(a)
    assert s.note(a) == {"a": 1, "e": "why", "n": 1}
    assert s.note(b) == {"n": 1}
    s.claim("e1", 9)
    s.claim("e1", 0, (a, "r", 0, b"again"))
    s.claim("e1", 1)
    assert s.claim("e1", 9, runs=[("q", 0, [(a, b""), (b, b"")])]) == [second, last]


@scenario
def a_follower_may_be_delayed_and_unique(s: Script) -> None:
    s.join()
    (a,) = s.put(count=1)
    last = s.after(a, delay_s=5, unique="k")
    soon = s.after(a, delay_s=1)
    assert s.send(s.job(options={"unique": "k"})) == [1, b"0u" + last.encode()]
    s.claim("e1", 1)
    s.now += 2000
    assert s.claim("e1", 9, (a, "s", 0)) == [soon]
    assert s.state(last) == "scheduled"
    s.now += 3000
    assert s.claim("e1", 9, (soon, "s", 0)) == [last]
    s.claim("e1", 0, (last, "s", 0))
    s.put(s.job(options={"unique": "k"}))


@scenario
def a_debounced_call_takes_no_followers_place(s: Script) -> None:
    s.join()
    (a,) = s.put(count=1)
    last = s.after(a, delay_s=5, unique="k")
    s.claim("e1", 1)
    s.claim("e1", 0, (a, "s", 0))
    (other,) = s.put(s.job(delay_s=1, options={"unique": "k", "debounce": 1}))
    assert s.state(last) == s.state(other) == "scheduled"


@scenario
def followers_of_other_queues_are_woken(s: Script) -> None:
    s.join()
    s.join("e2", queues=["p"])
    (a,) = s.put(count=1)
    last = s.after(a, queue="p", priority=9)
    s.step("e2", 1, idle=True, queues=["p"])
    s.claim("e1", 1)
    with Ear(s, "e2") as ear:
        s.claim("e1", 0, (a, "s", 0))
        assert ear.heard() == [("e2", b"wp")]
    assert s.claim("e2", 1, queues=["p"]) == [last]


@scenario
def a_blocked_job_takes_no_room(s: Script) -> None:
    s.join()
    s.fcall("switch", "q", "b", 1)
    (a,) = s.put(count=1)
    last = s.after(a)
    s.claim("e1", 1)
    assert s.claim("e1", 1, (a, "s", 0)) == [last]


@scenario
def many_followers_hear_in_slices(s: Script) -> None:
    s.join()
    s.join("e2")
    (a,) = s.put(count=1)
    ids = s.new_ids(450)
    s.put(*(s.job(id, queue="p", after=(a,), options={"x": 1}) for id in ids))
    s.claim("e1", 1)
    s.claim("e2", 1, idle=True)
    with Ear(s, "e2") as ear:
        assert s.step("e1", 9, (a, "s", 60, b"A"))[2] == s.now, "there is more to do at once"
        assert ear.heard() == [("e2", b"wq")]
    for count in (200, 400):
        assert s.list("p") == ids[:count]
        assert s.redis("EXISTS", f"n:{a}") == 1
        assert s.step("e1", 9)[2] == (s.now if count == 200 else -1)
    assert s.list("p") == ids
    assert s.names() & {f"n:{a}", "d:q"} == set()
    assert s.hash("p") == {}


@scenario
def a_long_chain_fails_in_slices(s: Script) -> None:
    s.join()
    (a,) = s.put(count=1)
    chain = [a]
    for _ in range(250):
        chain.append(s.after(chain[-1]))
    assert s.cancel(a) == "queued"
    assert s.state(chain[200]) == "f"
    assert s.state(chain[201]) == "blocked"
    assert s.step("e1", 1)[2] == -1
    assert [s.state(id) for id in chain[1:]] == ["f"] * 250
    assert unpack_record(s.look(chain[-1])[0][1:]).error_text == f"job {a} was cancelled"


@scenario
def many_formers_are_waited_for_in_slices(s: Script) -> None:
    s.join()
    s.join("e2")
    ids = s.put(count=2500)
    jobs = [s.job(after=tuple(ids), options={"inputs": 2500}), s.job(after=tuple(ids[:900]), options={"x": 1})]
    s.step("e2", 1, idle=True, queues=["p"])
    s.put(*jobs)
    big, small = (job.id for job in jobs)
    assert s.redis("ZRANGE", "d:q", 0, -1) == [f"<{big}1000".encode(), f"<{small}0".encode()]
    assert s.find(big)[5] == [b"2500", b"0", b"0", b"0", b"1", b"wait"]
    assert len(s.hash("x")) == 1000
    first = s.claim("e1", 200)
    assert len(s.hash("x")) == 2000
    s.claim("e1", 0, *((id, "s", 60, b"x") for id in first))
    s.redis("HDEL", "e", *ids[2400:])
    assert s.cancel(small) == "blocked"
    s.claim("e1", 0)
    assert s.state(big) == "blocked"
    last = s.claim("e1", 200)
    assert s.state(big) == "f", "what is forgotten when its turn comes has expired"
    assert unpack_record(s.look(big)[0][1:]).error_text == f"job {ids[2400]} has expired"
    assert s.redis("ZCARD", "d:q") == 0
    assert s.hash("p") == {}
    assert len(last) == 200


@scenario
def who_is_asked_for_again_waits_for_many(s: Script) -> None:
    s.join()
    ids = s.put(count=1500)
    last = s.after(*ids, inputs=1500)
    s.claim("e1", 1)
    assert s.claim("e1", 0, (ids[0], "f", 60, b"x")) == []
    assert s.state(last) == "f"
    s.claim("e1", 1)
    assert s.fcall("replay", ids[0], last) == [1, 1]
    held = s.held()
    for _ in range(20):
        held = set(s.claim("e1", 1000, *((id, "s", 0, id.encode()) for id in held)))
        if held == {last}:
            break
    said = s.look(*(f"{last}.{place}" for place in (0, 1, 1499)))
    assert said == [b"s" + ids[place].encode() for place in (0, 1, 1499)]
    s.claim("e1", 0, (last, "s", 0))
    assert s.counts() == {"n": 1503, "f": 2, "s": 1501}
    assert s.hash("x") == {}


@scenario
def a_repeated_step_releases_once(s: Script) -> None:
    s.join()
    a, b = s.put(count=2)
    last = s.after(a, b)
    s.claim("e1", 2)
    s.claim("e1", 0, (a, "s", 60))
    assert s.step("e1", 0, (a, "s", 60), seq=2)[0] == -2
    assert s.find(last)[5][1] == b"1"
    answer = s.step("e1", 9, (b, "s", 60), seq=9)
    assert answer[0] == -3
    assert s.list() == [last]
    assert s.step("e1", 9, (b, "s", 60), seq=9)[0] == -2
    assert s.list() == [last]


@scenario
def a_dead_follower_comes_back_with_what_it_was_given(s: Script) -> None:
    s.join()
    (a,) = s.put(count=1)
    last = s.after(a, input=1)
    s.claim("e1", 1)
    s.claim("e1", 1, (a, "s", 0, b"A"))
    s.claim("e1", 0, (last, "f", 60, b"x"))
    assert {ttl_of(s, f"{key}:{last}") for key in "jo"} == {60}
    assert s.fcall("replay", last) == [1]
    assert {s.redis("TTL", f"{key}:{last}") for key in "jo"} == {-1}
    assert s.claim("e1", 1) == [last]
    assert s.look(f"{last}.0") == [b"sA"]
    s.claim("e1", 0, (last, "f", 60, b"x"))
    s.fcall("purge", last)
    assert s.names() <= {"b", "a:e1", "c", "w:lane", "m"}


@scenario
def a_follower_that_failed_by_another_waits_once_more(s: Script) -> None:
    s.join()
    a, b, c = s.put(count=3)
    last = s.after(a, b, c, inputs=3)
    s.claim("e1", 3)
    s.claim("e1", 0, (a, "s", 0, b"A"), (b, "f", 60, b"x"))
    assert s.state(last) == "f"
    assert {ttl_of(s, f"{key}:{last}") for key in "joh"} == {FAILED_TTL}
    assert s.fcall("replay", last) == [0], "it failed for what is still so"
    assert sorted(id.decode() for id in s.fcall("dead")) == [b, last]
    assert s.fcall("replay", b, last) == [1, 1]
    assert {s.redis("TTL", f"{key}:{last}") for key in "joh"} == {-1}
    assert s.find(last)[5:] == [[b"3", b"1", b"0", b"0", b"1", b"wait"], [b.encode(), c.encode()]]
    assert s.claim("e1", 9, (c, "s", 0, b"C")) == [b]
    assert s.find(last)[5][:2] == [b"3", b"2"], "heard once, though it was told twice"
    assert s.claim("e1", 9, (b, "s", 0, b"B")) == [last]
    assert s.look(*(f"{last}.{place}" for place in range(3))) == [b"sA", b"sB", b"sC"]


@scenario
def a_follower_comes_back_after_what_succeeded_meanwhile(s: Script) -> None:
    s.join()
    a, b = s.put(count=2)
    last = s.after(a, b, input=1)
    s.claim("e1", 2)
    s.claim("e1", 0, (a, "f", 60, b"x"), (b, "s", 60, b"B"))
    s.fcall("replay", a)
    s.claim("e1", 1)
    s.claim("e1", 0, (a, "s", 60, b"A"))
    assert s.fcall("replay", last) == [1]
    assert s.list() == [last]
    assert s.look(f"{last}.0", f"{last}.1") == [b"sA", b"sB"]


@scenario
def a_follower_of_the_forgotten_stays_dead(s: Script) -> None:
    s.join()
    (a,) = s.put(count=1)
    last = s.after(a)
    s.claim("e1", 1)
    s.claim("e1", 0, (a, "f", 0, b"x"))
    assert s.fcall("replay", last) == [0]
    assert unpack_record(s.look(last)[0][1:]).error_text == f"job {a} has expired"


@scenario
def a_follower_whose_body_is_broken_leaves_the_others_alone(s: Script) -> None:
    s.join()
    (a,) = s.put(count=1)
    ids = [s.after(a) for _ in range(3)]
    s.redis("HSET", "e", ids[1], "1")
    s.claim("e1", 1)
    assert s.claim("e1", 9, (a, "s", 0)) == [ids[0], ids[2]]
    assert s.hash("p").keys() == {ids[1]}


# ------------------------------------------------------------------------------------------------ what people do


def switched(s: Script, queue: str = "q") -> list[bytes | None]:
    return s.fcall("depth", queue)[3][0][4]


@scenario
def a_paused_queue_hands_out_nothing(s: Script) -> None:
    s.join()
    ids = s.put(count=2)
    (late,) = s.put(s.job(delay_s=1))
    (other,) = s.put(count=1, queue="p")
    assert s.claim("e1", 1) == ids[:1]
    assert s.fcall("switch", "q", "p", 1) == 1
    assert switched(s) == [b"1", None]
    s.now += 1000
    answer = s.step("e1", 9, (ids[0], "s", 60, b"x"), idle=True, queues=["q", "p"])
    assert answer[2:4] == [-1, [other]]
    assert s.look(ids[0]) == [b"sx"]
    assert s.list() == [ids[1], late], "what is due waits with the others"
    assert s.step("e1", 9, idle=True)[2:4] == [-1, []]
    with Ear(s, "e1") as ear:
        s.fcall("switch", "q", "p", "")
        assert ear.heard() == [("e1", b"wq")]
    assert s.claim("e1", 9) == [ids[1], late]
    assert s.redis("EXISTS", "m") == 0


@scenario
def a_bounded_queue_takes_no_more(s: Script) -> None:
    s.join()
    s.fcall("switch", "q", "b", 4)
    assert switched(s) == [None, b"4"]
    (gone, *_) = s.put(count=2)
    s.put(s.job(delay_s=5))
    assert s.cancel(gone) == "queued"
    ids = s.new_ids(4)
    run = [word for id in ids for word in (id, pack_body(s.job(id)))]
    assert s.fcall("enqueue", "other", 1, "q", 5, 4, *run) == [1, b"2f,3f"]
    assert s.send(s.job(delay_s=5), s.job(ids[0], delay_s=5), s.job(options={"unique": "k"})) == [1, b"0f,1k,2f"]
    assert s.redis("EXISTS", "u") == 0
    s.put(s.job(queue="p"), s.job(hold=s.join("feeder")))
    assert len(s.claim("e1", 1)) == 1
    s.put(s.job(options={"unique": "k"}))
    s.claim("e1", 0, (s.held().pop(), "r", 0))
    s.parent(1, "feeder2")
    assert s.counts()["n"] == 9
    assert s.send(s.job(), s.job(options={"unique": "k"}, delay_s=1))[1].startswith(b"0f,1u")
    s.fcall("switch", "q", "b", "")
    s.put(count=3)


@scenario
def dead_letters_come_back_once(s: Script) -> None:
    s.join()
    ids = s.put(*(s.job(options={"unique": k, "expires": 9}) for k in "abc"))
    s.claim("e1", 9)
    s.claim("e1", 0, (ids[0], "r", 0, b"why"), (ids[1], "f", 60, b"x"), (ids[2], "c", 60, b"x"))
    s.claim("e1", 1)
    s.claim("e1", 0, (ids[0], "f", 90, b"x"))
    assert s.fcall("dead") == [ids[1].encode(), ids[0].encode()]
    assert (ttl_of(s, f"z:{ids[1]}"), ttl_of(s, f"f:{ids[1]}")) == (60, 60)
    body = pack_body(s.job(ids[0], options={"unique": "a", "expires": 9}))
    assert s.find(ids[0]) == [b"f", b"x", body, b"0"]
    assert s.find(ids[2]) == [b"c", b"x", None, None]
    s.now += 5
    assert s.fcall("replay", *ids, "nobody") == [1, 1, 0, 0]
    assert s.fcall("replay", *ids) == [1, 1, 0]
    assert s.fcall("dead") == []
    assert s.list() == ids[:2]
    assert s.look(*ids) == [b"", b"", b"cx"]
    assert s.note(ids[0]) == {"b": s.now}
    assert s.counts() == {"n": 5, "f": 2, "c": 1, "r": 1}
    assert s.claim("e1", 9) == ids[:2]
    s.claim("e1", 0, (ids[0], "f", 90, b"y"), (ids[1], "s", 0))
    s.send(s.job(options={"unique": "a"}))
    assert s.fcall("replay", ids[0]) == [0], "another has its key"
    assert s.look(ids[0]) == [b"fy"]
    s.claim("e1", 0, (s.claim("e1", 1)[0], "s", 0))
    s.fcall("switch", "q", "b", 0)
    assert s.fcall("replay", ids[0]) == [0], "its queue is full"
    s.fcall("purge", *ids, "nobody")
    assert s.look(*ids) == [None, None, b"cx"]
    assert not {key for key in s.names() if key.startswith("z")}


@scenario
def who_is_no_dead_letter(s: Script) -> None:
    parent, ids = s.parent(1)
    s.join()
    (unkept,) = s.put(count=1)
    s.claim("e1", 9)
    s.claim("e1", 0, (ids[0], "f", 60, b"x"), (unkept, "f", 0, b"x"))
    assert s.claim("e1", 1) == [parent]
    s.claim("e1", 0, (parent, "f", 60, b"x"))
    assert s.fcall("dead") == []
    assert {key for key in s.names() if key.startswith("z")} == {f"z:{parent}"}, "it may be opened anew, and no more"
    assert s.fcall("replay", parent, unkept) == [0, 0]
    assert s.look(parent) == [b"fx"]


@scenario
def dead_letters_are_forgotten_in_time_and_bounded(s: Script) -> None:
    s.join()

    def fail(ttl: int) -> str:
        (id,) = s.put(count=1)
        s.claim("e1", 1)
        s.claim("e1", 0, (id, "f", ttl, b"x"))
        return id

    first = fail(10)
    s.now += 10_001
    assert s.fcall("dead") == []
    second = fail(10)
    assert s.redis("ZRANGE", "z", 0, -1) == [second.encode()]
    for start in range(0, 9999, 1111):
        s.redis("ZADD", "z", *(word for n in range(1111) for word in (s.now + 20_000, f"id{start + n}")))
    third = fail(60)
    assert s.redis("ZCARD", "z") == 10_000
    assert s.redis("EXISTS", f"z:{second}") == 0
    assert s.look(second) == [b"fx"], "no dead letter, but a failed job as before"
    assert s.redis("EXISTS", f"z:{third}", f"{s.tag}z:{first}") == 2
    fail(60)
    assert s.redis("ZCARD", "z") == 10_000


@scenario
def strikes_are_made_and_lifted(s: Script) -> None:
    assert s.fcall("plans") == []
    assert [s.fcall("strike", "a", text) for text in ("one", "two")] == [1, 0]
    assert s.fcall("plans") == [[], [], [b"a", b"two"]]
    assert [s.fcall("strike", "a", "") for _ in range(2)] == [1, 0]
    assert s.fcall("plans") == []


@scenario
def schedules_are_set_and_lifted(s: Script) -> None:
    assert s.fcall("plans") == []
    assert s.fcall("schedule", "a", "text") == 1
    now = str(s.now).encode()
    s.now += 5
    assert s.fcall("schedule", "a", "other") == 0
    assert s.fcall("plans") == [[b"a", b"other"], [b"a", now], []]
    assert s.fcall("schedule", "a", "") == 1
    assert s.fcall("schedule", "a", "") == 0
    assert s.names() == set()


@scenario
def a_tick_fires_once(s: Script) -> None:
    def fire(tick: int, job: Job) -> bytes:
        said: bytes = s.fcall("fire", "a", tick, job.queue, job.id, pack_body(job))
        return said

    first = s.job(delay_s=0)
    assert fire(1000, first) == b""
    assert fire(1000, s.job()) == fire(999, s.job()) == b"b"
    assert s.list() == [first.id]
    s.fcall("switch", "q", "b", 1)
    assert fire(2000, s.job()) == b"f"
    s.fcall("switch", "q", "b", "")
    twin = s.job(options={"unique": "k"})
    assert fire(2000, twin) == b""
    assert fire(3000, s.job(options={"unique": "k"})) == b"u" + twin.id.encode()
    assert fire(3000, s.job()) == b"b", "whose job has a twin has fired"
    assert s.hash("t") == {"a": b"3000"}
    assert s.counts()["n"] == 2


@scenario
def which_queues_there_are(s: Script) -> None:
    s.put(s.job(queue="p:1"))
    s.fcall("switch", "q", "b", 3)
    assert s.fcall("queues") == [[b"p:1:n"], [b"p:1:l", b"q:b"]]


# ------------------------------------------------------------------------------------------------ lists of jobs


def told(s: Script, kind: str, place: str, count: int, after: str = "", at: object = "") -> list[str]:
    return [name.decode() for name in s.fcall("list", kind, place, count, after, at)]


@scenario
def who_ended_is_listed(s: Script) -> None:
    s.join()
    ids = s.put(count=40)
    stretch = ids[0][:5]
    buckets = [ids[0][:-1], ids[39][:-1]]
    s.claim("e1", 40)
    s.step("e1", 0, *((id, op, 60, b"x") for id, op in zip(ids[:3], "fce", strict=True)))
    s.step("e1", 0, (ids[3], "s", 60, b"x"), runs=[("q", 90, [(ids[39], b"A"), (ids[38], b"B")])])
    assert {op: listed(s, f"y:{op}{stretch}") for op in "fces"} == {
        "f": [ids[0]],
        "c": [ids[1]],
        "e": [ids[2]],
        "s": buckets,
    }
    assert listed(s, "y") == [f"{op}{stretch}" for op in "cefs"]
    assert [ttl_of(s, f"y:{op}{stretch}") for op in "fs"] == [60, 90]
    s.step("e1", 0, (ids[4], "f", 30, b"x"), (ids[5], "f", 0, b"x"), runs=[("q", 30, [(ids[6], b"C")])])
    assert listed(s, f"y:f{stretch}") == [ids[0], ids[4]]
    assert [ttl_of(s, f"y:{op}{stretch}") for op in "fs"] == [60, 90]
    assert told(s, "y", f"y:f{stretch}", 1, "-") == [ids[0]]
    assert told(s, "y", f"y:f{stretch}", 9, f"({ids[0]}") == [ids[4]]
    last, some = s.fcall("list", "s", f"y:s{stretch}", 1, "-", "")
    assert (last.decode(), sorted(id.decode() for id in some)) == (buckets[0], [ids[3], ids[6]])
    last, some = s.fcall("list", "s", f"y:s{stretch}", 3, f"[{buckets[0]}", "")
    assert (last.decode(), len(some)) == (buckets[1], 4)
    last, some = s.fcall("list", "s", f"y:s{stretch}", 2, f"[{buckets[0]}", "")
    assert (last.decode(), len(some)) == (buckets[0], 2)
    assert s.fcall("list", "s", f"y:s{stretch}", 2, f"({buckets[1]}", "") == [b"", []]


@scenario
def lists_of_many_stretches(s: Script) -> None:
    s.join()
    first = s.job(base32(START_MS - 3_600_000, 9) + "0" * 17)
    ids = [*s.put(first), *s.put(count=3)]
    old, new = f"s{first.id[:5]}", f"s{ids[1][:5]}"
    s.claim("e1", 9)
    s.step("e1", 0, runs=[("q", 60, [(id, b"") for id in ids[:2]])])
    assert listed(s, "y") == [old, new]
    assert (listed(s, f"y:{old}"), listed(s, f"y:{new}")) == ([first.id[:-1]], [ids[1][:-1]])
    s.redis("DEL", f"y:{old}")
    s.step("e1", 0, runs=[("q", 60, [(ids[2], b"")])])
    assert listed(s, "y") == [old, new], "only who begins a stretch tidies up"
    s.step("e1", 0, (ids[3], "f", 60, b""))
    assert listed(s, "y") == [f"f{ids[3][:5]}", new]


@scenario
def where_jobs_lie(s: Script) -> None:
    s.join()
    ids = s.put(count=5)
    late = [s.put(s.job(delay_s=delay))[0] for delay in (2, 1, 1)]
    s.claim()
    s.step("e1", 0, (ids[0], "f", 60, b""))
    epochs, switches, lists = s.fcall("places")
    assert (epochs, lists) == ([b"e1"], [f"f{ids[0][:5]}".encode()])
    assert dict(zip(switches[::2], switches[1::2], strict=True)) == {b"q:d": b"%d" % (s.now + 1000), b"q:l": b"5"}
    s.claim("e1", 1)
    assert sorted(told(s, "a", "a:e1", 9)) == ["", ids[1]]
    assert s.fcall("list", "r", "r:q:5", 2, "", -1) == [-1, [id.encode() for id in ids[2:4]]]
    moved = s.fcall("list", "r", "r:q:5", 9, ids[2], 1)
    assert [int(moved[0]), *moved[1]] == [0, ids[3].encode(), ids[4].encode()]
    gone = s.fcall("list", "r", "r:q:5", 9, ids[1], 3)
    assert [int(gone[0]), len(gone[1])] == [-1, 3]
    due = sorted((s.now + 1000 if k else s.now + 2000, id) for k, id in enumerate(late))
    members = [f"5{id}" for _, id in due]
    assert told(s, "d", "d:q", 2, "", "-inf")[::2] == members[:2]
    assert told(s, "d", "d:q", 9, members[0], due[0][0]) == [members[1], str(due[1][0]), members[2], str(due[2][0])]
    assert told(s, "d", "d:q", 9, "5gone", due[1][0] + 1) == [members[2], str(due[2][0])]
    assert told(s, "d", "d:q", 1, "5gone", "-inf") == [members[0], str(due[0][0])]


@scenario
def a_long_list_is_searched_from_its_head(s: Script) -> None:
    ids = [f"{k:026}" for k in range(3000)]
    s.redis("RPUSH", "r:q:5", *ids)
    for after, at, found in (
        (ids[2000], 2000, 2000),
        (ids[1500], 2000, 1500),
        (ids[2000], 1002, 2000),
        (ids[2000], 1000, -1),
    ):
        before, some = s.fcall("list", "r", "r:q:5", 1, after, at)
        assert (int(before), some) == (found, [ids[found + 1].encode()])


@scenario
def who_may_be_blocked_is_listed(s: Script) -> None:
    parent, _ = s.parent(1)
    s.join()
    (former,) = s.put(count=1)
    follower, failing = s.after(former), s.after(former)
    assert listed(s, "y:b") == sorted([parent, follower, failing])
    s.claim("e1", 9)
    s.cancel(parent)
    s.cancel(follower)
    s.step("e1", 0, (former, "f", 60, b""))
    assert s.state(failing) == "f"
    assert listed(s, "y:b") == []


# ------------------------------------------------------------------------------------------------ the server


@scenario
def looks_write_nothing(s: Script) -> None:
    flags = {}
    for library in s.raw("FUNCTION", "LIST", "LIBRARYNAME", s.library):
        for function in library[library.index(b"functions") + 1]:
            about = dict(zip(function[::2], function[1::2], strict=True))
            flags[about[b"name"].decode().rpartition("_")[2]] = {flag.decode() for flag in about[b"flags"]}
    changing = ("step", "join", "beat", "reap", "cancel", "wait", "switch", "purge", "regulate", "schedule", "strike")
    writes = {key: {"allow-oom"} for key in changing}
    assert flags == {
        "enqueue": set(),
        "replay": set(),
        "fire": set(),
        **writes,
        **{key: {"no-writes"} for key in NO_WRITES},
    }


@scenario
def strange_calls_are_errors(s: Script) -> None:
    s.join()
    try:
        s.fcall("step", "e1")
    except ScriptError:
        return
    raise AssertionError("a step without arguments was accepted")
