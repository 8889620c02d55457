"""PromQL in which each selector keeps to the fleets (`job`) and processes (`instance`) that were chosen.

There are two kinds of metrics. What the broker counts is the same whoever is asked, so it is taken once
(`max` over instances) and never added up. What a process measured of itself adds up.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncworker.daemon.catalogue import CATALOGUE, PREFIX

CHOSEN = 'job=~"$job",instance=~"$instance"'


@dataclass(frozen=True)
class Query:
    """An expression and how its series are called; ``by`` in braces is a label's value."""

    expr: str
    legend: str
    instant: bool = False


def pick(metric: str, *matchers: str) -> str:
    """Return the selector of a metric, named without its prefix."""
    return f"{PREFIX}{metric}{{{','.join((CHOSEN, *matchers))}}}"


def rate(metric: str, by: str, *matchers: str, over: str = "$__rate_interval", per: str = "rate") -> str:
    """Return what a counter gains in a second (or, with *per* "increase", in *over*), summed up by these labels."""
    return _sum(metric, by, f"{per}({pick(metric, *matchers)}[{over}])")


def increase(metric: str, by: str, *matchers: str) -> str:
    """Return what a counter gained in the shown time."""
    return rate(metric, by, *matchers, over="$__range", per="increase")


def gained(metric: str, by: str, *matchers: str, over: str = "$__range") -> str:
    """Return what a counter gained, the event included with which a series begins: `increase` sees only later ones.

    For rare events whose labels nobody knows beforehand. What came before a series was first scraped counts as well.
    """
    now = level(metric, by, *matchers)
    before = _sum(metric, by, f"{pick(metric, *matchers)} offset {over}")
    return f"clamp_min({now} - ({before} or {now} * 0), 0)"


def level(metric: str, by: str, *matchers: str) -> str:
    """Return a gauge, summed up by these labels."""
    return _sum(metric, by, pick(metric, *matchers))


def most(metric: str, by: str, *matchers: str) -> str:
    """Return the greatest of a gauge by these labels."""
    return f"max{_by(by)} ({pick(metric, *matchers)})"


def least(metric: str, by: str, *matchers: str) -> str:
    """Return the least of a gauge by these labels."""
    return f"min{_by(by)} ({pick(metric, *matchers)})"


def quantile(of: float, histogram: str, by: str, *matchers: str) -> str:
    """Return a quantile of a histogram by these labels."""
    labels = ", ".join(filter(None, ("le", by)))
    inner = f"rate({pick(f'{histogram}_bucket', *matchers)}[$__rate_interval])"
    return f"histogram_quantile({of:g}, sum by ({labels}) ({inner}))"


def mean(histogram: str, by: str, *matchers: str) -> str:
    """Return the mean of a histogram by these labels."""
    whole, number = (rate(f"{histogram}_{part}", by, *matchers) for part in ("sum", "count"))
    return f"{whole} / {number}"


def or_zero(expr: str) -> str:
    """Return 0 where there is nothing: what never happened has no series."""
    return f"{expr} or on() vector(0)"


def share(part: str, whole: str) -> str:
    """Return a part of a whole; 0 where the whole is nothing."""
    return or_zero(f"{part} / ({whole} > 0)")


def chosen(label: str) -> str:
    """Return the matcher by which people choose this label's values: the variable has its name."""
    return f'{label}=~"${label}"'


def _sum(metric: str, by: str, expr: str) -> str:
    entry = CATALOGUE.get(metric) or CATALOGUE[metric.rpartition("_")[0]]  # a histogram's bucket, sum and count
    if entry.source == "broker":
        expr = f"max by ({', '.join(('job', *entry.labels))}) ({expr})"
    return f"sum{_by(by)} ({expr})"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
