"""``asyncworker export``: files for what watches and scales a fleet, made for your engine."""

from __future__ import annotations

import click

from asyncworker.cli.command import Call, command, group
from asyncworker.cli.target import engine_for
from asyncworker.daemon.catalogue import table
from asyncworker.daemon.keda import scaled_object


def keda(call: Call) -> None:
    """Print a KEDA ScaledObject: one trigger for each queue of TARGET, by how long its oldest job waits.

    It scales the Deployment 'asyncworker', and asks the Prometheus of the cluster; edit both addresses.
    """
    call.show(scaled_object(list(engine_for(call).queues)).rstrip("\n"))


def metrics(call: Call) -> None:
    """Print the table of all metrics, as Markdown."""
    call.show(table().rstrip("\n"))


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
    examples="""
  asyncworker export keda shop:engine | kubectl apply -f -
  asyncworker export metrics""",
)
