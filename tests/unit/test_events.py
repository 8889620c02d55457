from __future__ import annotations

import inspect
import logging

import msgspec
import pytest

from asyncworker import events
from asyncworker.events import BrokerDisrupted, BrokerRestored, Bus, Event

DISRUPTED = BrokerDisrupted("redis", "gone")
RESTORED = BrokerRestored("redis", 1.5)


@pytest.fixture
def bus() -> Bus:
    return Bus()


def test_events_come_in_order_to_those_who_listen(bus: Bus):
    heard: list[tuple[str, Event]] = []
    bus.listen(BrokerDisrupted, lambda event: heard.append(("a", event)))
    bus.listen(BrokerDisrupted, lambda event: heard.append(("b", event)))
    bus.emit(DISRUPTED)
    bus.emit(RESTORED)
    assert heard == [("a", DISRUPTED), ("b", DISRUPTED)]


def test_only_exactly_this_kind(bus: Bus):
    heard: list[Event] = []
    bus.listen(Event, heard.append)
    bus.emit(DISRUPTED)
    assert heard == []


def test_who_has_ended_hears_no_more(bus: Bus):
    heard: list[Event] = []
    end = bus.listen(BrokerDisrupted, heard.append)
    assert bus.wants(BrokerDisrupted)
    assert not bus.wants(BrokerRestored)
    end()
    end()
    bus.emit(DISRUPTED)
    assert heard == []
    assert not bus.wants(BrokerDisrupted)


def test_a_listener_that_fails_disturbs_nobody(bus: Bus, caplog: pytest.LogCaptureFixture):
    heard: list[Event] = []

    def fail(event: Event) -> None:
        raise RuntimeError("broken listener")

    bus.listen(BrokerDisrupted, fail)
    bus.listen(BrokerDisrupted, heard.append)
    with caplog.at_level(logging.ERROR):
        bus.emit(DISRUPTED)
    assert heard == [DISRUPTED]
    assert "a listener of BrokerDisrupted failed" in caplog.text
    assert "broken listener" in caplog.text


def test_a_listener_may_end_itself_and_begin_others_while_it_listens(bus: Bus):
    heard: list[str] = []

    def once(event: Event) -> None:
        heard.append("once")
        end()
        bus.listen(BrokerDisrupted, lambda event: heard.append("new"))

    end = bus.listen(BrokerDisrupted, once)
    bus.listen(BrokerDisrupted, lambda event: heard.append("always"))
    bus.emit(DISRUPTED)
    assert heard == ["once", "always"]
    bus.emit(DISRUPTED)
    assert heard == ["once", "always", "always", "new"]


def test_events_are_data(bus: Bus):
    kinds = [kind for _, kind in inspect.getmembers(events, inspect.isclass) if issubclass(kind, Event)]
    assert len(kinds) > 5
    for kind in kinds:
        assert kind.__struct_config__.frozen, kind
    with pytest.raises(AttributeError):
        DISRUPTED.error = "other"
    assert msgspec.to_builtins(DISRUPTED) == {"broker": "redis", "error": "gone"}


def test_the_table_names_every_event():
    kinds = {
        name
        for name, kind in inspect.getmembers(events, inspect.isclass)
        if issubclass(kind, Event) and kind is not Event
    }
    rows = (line.split("|")[1].strip() for line in (events.__doc__ or "").splitlines() if line.startswith("| "))
    assert set(rows) - {"event"} == kinds
