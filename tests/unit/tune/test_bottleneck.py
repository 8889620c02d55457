from __future__ import annotations

from asyncworker.tune.bottleneck import Bottleneck, bottlenecks
from asyncworker.tune.metered import AWAIT, ON_LOOP, READY, Record


def record(name: str, *, loop: float = 0.0, cpu: float = 0.0, longest: float = 0.0, calls: int = 1) -> Record:
    made = Record(None, (name, f"{name}.py", 1))
    made.calls, made.longest = calls, longest
    made.on_loop = made.clocked_loop = loop
    made.cpu = cpu
    return made


def told(stacks: dict[tuple[str, ...], float], *records: Record) -> list[Bottleneck]:
    named = {of.frame[0]: of.label for of in records}
    return bottlenecks(
        {tuple(named.get(word, word) for word in stack): seconds for stack, seconds in stacks.items()},
        {of.label: of for of in records},
    )


def test_shares_are_of_the_critical_path_not_of_summed_time() -> None:
    # A hundred calls side by side, a second each, cost their caller one.
    side_by_side = record("side", loop=100.0, cpu=100.0, calls=100)
    found = told({("root", "side", ON_LOOP): 1.0, ("root", AWAIT): 3.0}, record("root"), side_by_side)
    assert [(of.function, of.kind, of.share) for of in found] == [("root", "await", 0.75), ("side", "on loop", 0.25)]


def test_the_same_function_on_many_stacks_is_one_bottleneck() -> None:
    found = told({("a", "f", AWAIT): 1.0, ("b", "f", AWAIT): 2.0}, record("a"), record("b"), record("f"))
    assert [(of.function, of.seconds) for of in found] == [("f", 3.0)]


def test_what_computes_long_is_told_to_go_elsewhere() -> None:
    (of,) = told({("f", ON_LOOP): 1.0}, record("f", loop=1.0, cpu=0.95, longest=0.2))
    assert "to a process" in of.advice
    (of,) = told({("f", ON_LOOP): 1.0}, record("f", loop=1.0, cpu=0.95, longest=0.001))
    assert of.advice == ""


def test_what_blocks_is_told_apart_from_a_host_that_is_short_of_processors() -> None:
    blocks, computes = record("blocks", loop=1.0, cpu=0.02), record("computes", loop=1.0, cpu=0.98)
    found = told({("blocks", ON_LOOP): 2.0, ("computes", ON_LOOP): 1.0}, blocks, computes)
    assert "time.sleep" in found[0].advice
    slow = record("slow", loop=1.0, cpu=0.4)
    found = told({("slow", ON_LOOP): 2.0, ("other", ON_LOOP): 1.0}, slow, record("other", loop=1.0, cpu=0.42))
    assert "short of processors" in found[0].advice


def test_no_advice_without_data() -> None:
    (of,) = told({("f", ON_LOOP): 1.0}, record("f", loop=0.001, cpu=0.0))
    assert of.advice == ""
    assert told({}) == []
    assert told({("[other]", AWAIT): 1.0}) == []


def test_waiting_for_a_turn_and_one_after_another() -> None:
    (of,) = told({("f", READY): 1.0}, record("f"))
    assert "worker processes" in of.advice
    calls = record("f", calls=10)
    calls.nested = 10
    (of,) = told({("f", AWAIT): 1.0}, calls)
    assert "one after another" in of.advice
    assert "cach" not in of.advice
    (of,) = told({("f", AWAIT): 1.0}, record("f", calls=10))
    assert of.advice == ""
