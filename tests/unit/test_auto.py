from __future__ import annotations

from asyncworker.auto import PARTITION_QUEUE, PARTITIONS_AT_ONCE, slots


def test_auto_seeks_what_nobody_said_a_number_for() -> None:
    assert slots(["default", PARTITION_QUEUE], "auto") == {"default": None, PARTITION_QUEUE: PARTITIONS_AT_ONCE}
    assert slots({"default": 7}, "auto") == {"default": 7}, "a number that was given is kept"


def test_a_number_is_every_queue_s_but_for_partitions() -> None:
    assert slots(["default", PARTITION_QUEUE], 20) == {"default": 20, PARTITION_QUEUE: PARTITIONS_AT_ONCE}
    assert slots([PARTITION_QUEUE], 1) == {PARTITION_QUEUE: 1}
