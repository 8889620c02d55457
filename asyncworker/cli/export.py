"""``asyncworker export``: files for what watches and scales a fleet, made for your engine."""

from __future__ import annotations

from pathlib import Path

import click

from asyncworker.cli.command import Call, command, group
from asyncworker.cli.target import engine_for
from asyncworker.daemon.catalogue import table
from asyncworker.daemon.grafana import rules, write
from asyncworker.daemon.keda import scaled_object
from asyncworker.errors import SettingsError


def keda(call: Call) -> None:
    """Print a KEDA ScaledObject: one trigger for each queue of TARGET, by how long its oldest job waits.

    It scales the Deployment 'asyncworker', and asks the Prometheus of the cluster; edit both addresses.
    """
    call.show(scaled_object(list(engine_for(call).queues)).rstrip("\n"))


def metrics(call: Call) -> None:
    """Print the table of all metrics, as Markdown."""
    call.show(table().rstrip("\n"))


def grafana(call: Call, folder: str) -> None:
    """Write dashboards, provisioning, rules and the runbook to DIR, over those of an earlier version.

    DIR/README.md says how Grafana and Prometheus are given them.
    """
    try:
        made = write(Path(folder))
    except OSError as exc:
        raise SettingsError(f"{folder} cannot be written: {exc.strerror or exc}") from exc
    call.say(f"{len(made)} files in {folder}; README.md there says how to load them")


def alerts(call: Call, file: str) -> None:
    """Print the rules of Prometheus, alerts and what they ask for, or write them to FILE."""
    if file == "-":
        call.show(rules().rstrip("\n"))
        return
    try:
        Path(file).write_text(rules(), "utf-8")
    except OSError as exc:
        raise SettingsError(f"{file} cannot be written: {exc.strerror or exc}") from exc


_TARGET = click.Argument(["app"], required=False, metavar="[TARGET]")

COMMAND = group(
    "export",
    "Print files for what watches and scales a fleet.",
    command(
        "keda",
        keda,
        _TARGET,
        flags=("queues",),
        examples="""
  asyncworker export keda shop:engine > scaledobject.yaml""",
    ),
    command(
        "metrics",
        metrics,
        examples="""
  asyncworker export metrics > METRICS.md""",
    ),
    command(
        "grafana",
        grafana,
        click.Argument(["folder"], metavar="DIR"),
        examples="""
  asyncworker export grafana /etc/asyncworker""",
    ),
    command(
        "alerts",
        alerts,
        click.Argument(["file"], required=False, default="-", metavar="[FILE]"),
        examples="""
  asyncworker export alerts /etc/prometheus/rules/asyncworker.yaml
  asyncworker export alerts > asyncworker.yaml""",
    ),
    examples="""
  asyncworker export grafana /etc/asyncworker
  asyncworker export alerts /etc/prometheus/rules/asyncworker.yaml
  asyncworker export keda shop:engine | kubectl apply -f -
  asyncworker export metrics""",
)
