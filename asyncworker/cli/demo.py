"""``asyncworker demo``: two jobs over real flights, to see it work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asyncworker.cli.command import Call, command
from asyncworker.cli.dataset import Request, json_object
from asyncworker.cli.line import count, duration
from asyncworker.cli.run import running, running_engine
from asyncworker.cli.table import show_table
from asyncworker.errors import SettingsError
from asyncworker.mapreduce.job import Summary
from asyncworker.settings import Settings

FLIGHTS = Path("examples", "data", "flights-2013-01.csv.gz")
JOBS = {
    "validation": ("data_validation", Path("examples", "flights-rules.json")),
    "delays": ("data_aggregation", Path("examples", "flights-delays.json")),
}
WORKERS = 2
PARTITION_SIZE = 2_000
"""Small, so that there is something to be seen: 27,004 flights make 14 partitions."""
COMMONEST = 8


async def body(call: Call) -> None:
    """See it work: two jobs over all flights that left New York in January 2013.

    The first checks each flight against rules, the second computes the departure delay by carrier. They go
    through a server of our own and two worker processes, all of which end with the demo.
    """
    here = folder()
    call.settings = Settings(
        workers=WORKERS, partition_size=PARTITION_SIZE, json=call.settings.json, debug=call.settings.debug
    )
    done: dict[str, Summary] = {}
    call.say(f"{FLIGHTS}: two jobs, each in partitions of {PARTITION_SIZE:,} flights, on {WORKERS} worker processes")
    async with running_engine(call) as engine, running(call, engine) as run:
        for name, (function, params) in JOBS.items():
            params_read = json_object(str(here / params), "params")
            done[name] = await run(Request(f"{here / FLIGHTS}?missing=NA", function, params_read))
    if call.settings.json:
        call.document(done)
    else:
        show(call, done["validation"], done["delays"])


def folder() -> Path:
    """Return where the examples lie: the repository, or this directory.

    Raises:
        SettingsError: nowhere; they are not part of what pip installs.
    """
    for place in (Path(__file__).parents[2], Path.cwd()):
        if all((place / file).is_file() for file in (FLIGHTS, *(params for _, params in JOBS.values()))):
            return place
    raise SettingsError(f"{FLIGHTS} is not here: it comes with the source tree, so run the demo in a clone of that")


def show(call: Call, validation: Mapping[str, Any], delays: Mapping[str, Any]) -> None:
    found = validation["final_result"]
    call.show(
        f"{count(found['valid_count'])} flights keep the rules, {count(found['invalid_count'])} break some{pace(validation)}"
    )
    broken = [
        (rule, field, of["count"], of["examples"][0].get("value", "") if of["examples"] else "")
        for rule, fields in found["validation_summary"].items()
        for field, of in fields.items()
    ]
    broken.sort(key=lambda row: -row[2])
    show_table(call, ("rule", "field", "flights", "such as"), broken[:COMMONEST])
    call.show(f"\nDeparture delay by carrier, in minutes{pace(delays)}")
    show_table(
        call,
        ("carrier", "flights", "departed", "mean delay", "longest"),
        [
            (group["key"]["carrier"], group["items"], *(group[f"dep_delay_{what}"] for what in ("count", "avg", "max")))
            for group in delays["final_result"]["groups"]
        ],
    )


def pace(summary: Mapping[str, Any]) -> str:
    stats = summary["processing_stats"]
    return (
        f" ({count(summary['total_processed'])} items in {duration(stats['wall_time'])},"
        f" {count(stats['average_items_per_second'])} items/s)"
    )


COMMAND = command(
    "demo",
    body,
    flags=("json",),
    examples="""
  asyncworker demo
  asyncworker demo --json""",
)
