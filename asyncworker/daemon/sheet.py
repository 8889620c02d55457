"""A sheet of numbers: what one process, or a fleet, tells at one moment; and its text for Prometheus.

Sheets of several processes add up to one. Names, types and labels are those of the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from asyncworker.daemon.catalogue import CATALOGUE, PREFIX, Entry
from asyncworker.tune.sensors.jobs import OTHER

MOST_SERIES = 1000
"""Of one metric: those that came first, and one more for all others."""

Labels = tuple[str, ...]
Key = tuple[str, Labels]
"""A metric's name without its prefix, and the values of its labels in the catalogue's order."""


class Spread(msgspec.Struct, array_like=True):
    """A histogram's counts by bucket (not of those below it; the last is beyond all bounds), and the sum."""

    counts: list[int]
    sum: float

    def plus(self, other: Spread) -> Spread:
        return Spread([a + b for a, b in zip(self.counts, other.counts, strict=True)], self.sum + other.sum)


class Sheet(msgspec.Struct, array_like=True):
    """Counters and gauges, and histograms. None of it is changed once it was handed on."""

    numbers: dict[Key, float] = {}
    spreads: dict[Key, Spread] = {}

    def put(self, name: str, value: float, *labels: str) -> None:
        self.numbers[name, labels] = value

    def only(self, *kinds: str) -> Sheet:
        """Return the metrics of these types."""
        numbers = {key: value for key, value in self.numbers.items() if CATALOGUE[key[0]].kind in kinds}
        return Sheet(numbers, self.spreads.copy() if "histogram" in kinds else {})

    def since(self, before: Sheet) -> Sheet:
        """Return all gauges, and of the rest what is not as it was before."""
        numbers = {
            key: value
            for key, value in self.numbers.items()
            if CATALOGUE[key[0]].kind == "gauge" or before.numbers.get(key) != value
        }
        return Sheet(numbers, {key: of for key, of in self.spreads.items() if before.spreads.get(key) != of})

    def after(self, later: Sheet) -> Sheet:
        """Return this brought up to date by what `since` told: values replace values, gauges all gauges."""
        rest = self.only("counter", "histogram")
        return Sheet(rest.numbers | later.numbers, rest.spreads | later.spreads)

    def fits(self) -> bool:
        """Return whether all of it is in the catalogue; what another process sends need not be."""
        numbers = (
            (entry := CATALOGUE.get(name)) is not None
            and entry.kind != "histogram"
            and len(labels) == len(entry.labels)
            for name, labels in self.numbers
        )
        spreads = (
            (entry := CATALOGUE.get(name)) is not None
            and entry.kind == "histogram"
            and (len(labels), len(of.counts)) == (len(entry.labels), len(entry.bounds) + 1)
            for (name, labels), of in self.spreads.items()
        )
        return all(numbers) and all(spreads)


class Series:
    """The series there are. What comes when a metric has `MOST_SERIES` is told under `OTHER`, and stays there.

    So a counter that was told never goes down, and names without end make no series without end.
    """

    def __init__(self, most: int = MOST_SERIES) -> None:
        self._most = most
        self._known: dict[str, set[Labels]] = {}

    def name(self, key: Key) -> Key:
        """Return the series under which *key* is told."""
        name, labels = key
        known = self._known.setdefault(name, set())
        if labels not in known:
            if len(known) >= self._most:
                return name, (OTHER,) * len(labels)
            known.add(labels)
        return key

    def merge(self, sheets: Iterable[Sheet]) -> Sheet:
        """Return all in one."""
        whole = Sheet()
        for sheet in sheets:
            for key, value in sheet.numbers.items():
                entry, key = CATALOGUE[key[0]], self.name(key)
                so_far = whole.numbers.get(key)
                if so_far is not None:
                    value = max(so_far, value) if entry.largest else so_far + value
                whole.numbers[key] = value
            for key, of in sheet.spreads.items():
                key = self.name(key)
                whole.spreads[key] = of.plus(whole.spreads[key]) if key in whole.spreads else of
        return whole


def families(sheet: Sheet) -> Iterator[Metric]:
    """Yield the sheet as metrics, in the catalogue's order."""
    rows: dict[str, list[tuple[Labels, float | Spread]]] = {}
    for table in (sheet.numbers, sheet.spreads):
        for (name, labels), value in table.items():
            rows.setdefault(name, []).append((labels, value))
    for name, entry in CATALOGUE.items():
        if name in rows:
            yield _family(entry, rows[name])


def _family(entry: Entry, rows: Sequence[tuple[Labels, float | Spread]]) -> Metric:
    whole: Any = _FAMILIES[entry.kind](PREFIX + entry.name, entry.doc, labels=entry.labels)
    for labels, value in sorted(rows, key=itemgetter(0)):
        if isinstance(value, Spread):
            whole.add_metric(labels, _buckets(entry, value), value.sum)
        else:
            whole.add_metric(labels, value)
    made: Metric = whole
    return made


_FAMILIES: dict[str, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _buckets(entry: Entry, of: Spread) -> list[tuple[str, float]]:
    buckets, below = [], 0
    for bound, number in zip((*map(str, entry.bounds), "+Inf"), of.counts, strict=True):
        below += number
        buckets.append((bound, float(below)))
    return buckets


class _Once(Collector):
    """Tell one sheet."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet

    def collect(self) -> Iterable[Metric]:
        return families(self._sheet)


def text(sheet: Sheet, accept: str) -> tuple[bytes, str]:
    """Return the sheet in the format that ``Accept`` asks for, OpenMetrics or Prometheus' own, and its content type.

    Cost: 0.4 s for 1,000 histograms; not in an event loop.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(sheet))
    try:
        encode, kind = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, kind = choose_encoder("")
    return encode(registry), kind
