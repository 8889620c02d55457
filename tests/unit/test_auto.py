from __future__ import annotations

import pytest

from asyncworker import Engine, SettingsError
from asyncworker.auto import PARTITION_QUEUE, PARTITIONS_AT_ONCE, slots


def test_auto_seeks_what_nobody_said_a_number_for() -> None:
    assert slots(["default", PARTITION_QUEUE], "auto") == {"default": None, PARTITION_QUEUE: PARTITIONS_AT_ONCE}
    assert slots({"default": 7}, "auto") == {"default": 7}, "a number that was given is kept"


def test_a_number_is_every_queue_s_but_for_partitions() -> None:
    assert slots(["default", PARTITION_QUEUE], 20) == {"default": 20, PARTITION_QUEUE: PARTITIONS_AT_ONCE}
    assert slots([PARTITION_QUEUE], 1) == {PARTITION_QUEUE: 1}


def test_a_queue_is_given_a_number_or_auto_and_nothing_else() -> None:
    assert slots({"mail": "auto", "bulk": 3}, 5) == {"mail": None, "bulk": 3}
    for bad in (0, -1, True, 2.5, "3", None):
        with pytest.raises(SettingsError, match="queue 'mail' wants a number of jobs from 1, or 'auto'"):
            Engine(queues={"mail": bad})  # type: ignore[dict-item]
