"""How fast do no-op jobs go in and come out, beside the field?

Null hypothesis: one asyncworker worker process drains no more jobs a second than the best peer's, with and without
results, and its client enqueues no more, one by one and in bulk.

    python -m bench.bench_queue                               # 3 rounds, everybody: the whole table; about ten minutes
    python -m bench.bench_queue --rounds 1 --jobs 1000 --ours-jobs 10000 --single 200          # the same in a minute
    python -m bench.bench_queue --small                       # a few seconds, nothing is installed

How it is timed. All peers and we talk to one server that the bench starts on loopback, emptied between turns; each
round gives every contender its turns (results off, results on), in an order that rotates. A turn enqueues one by
one (each awaited), empties the server, enqueues in bulk by the best way the peer has, and only then starts one
worker process, so its start-up is not in the drain. A drain counts from the start of the first body to the moment
when the last job is settled, which for all but one is in the same transaction as, or after, its result can be
read. The start is noted by the no-op itself (one ``next`` and one comparison a call, the same for everyone); the
end is seen from outside, by a client that asks the broker what is left, with pauses of half a percent of the time
so far. taskiq's list broker settles nothing: without results its drain ends with the start of its last body. When
results are on, the client reads the last job's by the peer's own call and it must be right. CPU is of the worker's
processes, from the first body on; commands are those that Redis ran, in scripts too, less the polls'; memory is the
peak of the worker's processes (VmHWM) added up, so what they share counts in each.

``bound`` is no contender: our broker under a bare loop (`bench/peers/bound.py`). Settings are in
`bench/peers/roster.py`: what a user gets by default, timeouts and retries on; the second row of ours measures each job
for ``/metrics``, too. Peers drain fewer jobs than we do because they take so much longer, and the slowest of them fewer
still; a rate is a rate.
Ours runs with what it depends on and no
extra, as the peers do. Nothing is pinned to a processor: worker, server and client share what there is. A peer that hangs is ended at the
cap and reported; nothing outlives the bench.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import psutil

from bench.child import ChildError
from bench.environment import OURS, dependencies, python
from bench.peers.roster import Peer, at_once, contenders
from bench.report import Machine, table, told
from bench.server import Server
from bench.turn import Figures, turn

PEERS = contenders("queue")
GIVE_UP = 2
"""After so many failed turns a contender gets no more."""
COSTS = {
    "worker us": "worker_us",
    "server us": "server_us",
    "commands": "commands",
    "start s": "start_s",
    "MB": "memory_mb",
}


@dataclass
class Runs:
    """What was measured so far: by contender and whether results were on, a figure or None a round."""

    figures: dict[tuple[str, bool], list[Figures | None]] = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)

    def of(self, name: str, measure: str, sides: Sequence[bool]) -> list[float | None]:
        """Return the values of a measure in the order of the rounds; *sides* are results off, on or both."""
        rounds = [one for side in sides for one in self.figures.get((name, side), ())]
        return [None if one is None else getattr(one, measure) for one in rounds]

    def best(self, measure: str, sides: Sequence[bool]) -> str:
        """Return the peer with the highest median, "" where none was measured."""
        rates = {
            name: [rate for rate in self.of(name, measure, sides) if rate]
            for name, peer in PEERS.items()
            if not peer.ours
        }
        return max((name for name in rates if rates[name]), key=lambda name: median(rates[name]), default="")

    def cells(self, name: str, measure: str, sides: Sequence[bool]) -> tuple[str, str]:
        """Return a rate, and what multiple of the best peer's it is, compared within each round."""
        own, other = self.of(name, measure, sides), self.of(self.best(measure, sides), measure, sides)
        ratios = [rate / theirs for rate, theirs in zip(own, other, strict=False) if rate and theirs]
        return told([rate for rate in own if rate]), told(ratios, ".2f")

    def leanest(self) -> tuple[str, float] | None:
        """Return the peer whose worker took the least memory at its peak, and how much (MB); None where none was measured."""
        both = {name: self.of(name, "memory_mb", (False, True)) for name, peer in PEERS.items() if not peer.ours}
        peaks = {name: max(known) for name, of in both.items() if (known := [one for one in of if one])}
        return min(peaks.items(), key=lambda one: one[1], default=None)

    def memory(self) -> str:
        """Say how our worker's memory compares."""
        own = [one for one in self.of("asyncworker", "memory_mb", (False, True)) if one]
        if not (own and (leanest := self.leanest())):
            return ""
        return (
            f"Peak memory: ours {max(own):.1f} MB, {max(own) - leanest[1]:+.1f} beside the leanest peer ({leanest[0]})"
        )

    def cost(self, name: str, measure: str, side: bool) -> str:
        values = [value for value in self.of(name, measure, (side,)) if value is not None]
        return f"{median(values):,.1f}" if values else "-"


async def measure(args: argparse.Namespace, server: Server, machine: Machine, runs: Runs) -> None:
    """Give every contender its turns, round by round."""
    names = args.only
    for number in range(args.rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            for results in (False, True):
                if len(runs.errors.get(name, ())) >= GIVE_UP:
                    continue
                machine.probe()
                figures = await attempt(name, PEERS[name], server, results, args, runs)
                runs.figures.setdefault((name, results), []).append(figures)
                if figures:
                    say(
                        f"round {number + 1}  {name:20} results {'on ' if results else 'off'}  {figures.drain:>9,.0f}/s"
                    )


def jobs_of(peer: Peer, args: argparse.Namespace) -> int:
    """Return how many jobs a contender drains."""
    return args.ours_jobs if peer.ours else max(1, round(args.jobs * peer.share))


async def attempt(
    name: str, peer: Peer, server: Server, results: bool, args: argparse.Namespace, runs: Runs
) -> Figures | None:
    concurrency = args.concurrency.get(name, peer.concurrency)
    try:
        return await turn(
            name,
            peer,
            server,
            results=results,
            jobs=jobs_of(peer, args),
            single=args.single,
            concurrency=concurrency,
            cap=args.cap,
        )
    except TimeoutError:
        error = f"not done after {args.cap:g} s"
    except (ChildError, OSError, LookupError, ValueError, psutil.Error) as exc:
        error = f"{type(exc).__name__}: {exc}"
    runs.errors.setdefault(name, []).append(error)
    say(f"{name}: {error}")
    return None


def report(args: argparse.Namespace, runs: Runs, machine: Machine, version: str) -> str:
    """Return the tables for people."""
    off, on, both = (False,), (True,), (False, True)
    enqueue = [[name, *runs.cells(name, "single", both), *runs.cells(name, "bulk", both)] for name in args.only]
    drain = [[name, *runs.cells(name, "drain", off), *runs.cells(name, "drain", on)] for name in args.only]
    costs = [[name, *(runs.cost(name, cost, side) for side in both for cost in COSTS.values())] for name in args.only]
    settings = [
        f"{name}: {jobs_of(PEERS[name], args):,} jobs, "
        f"concurrency {at_once(args.concurrency.get(name, PEERS[name].concurrency))}, {PEERS[name].settings}; "
        + (", ".join(PEERS[name].pins) or "this checkout")
        for name in args.only
    ]
    best = [runs.best(*of) or "nobody" for of in (("single", both), ("bulk", both), ("drain", off), ("drain", on))]
    return "\n".join(
        [
            f"Jobs a second: median [lowest-highest] of {args.rounds} rounds; ratios are to the best peer, round by round.",
            f"{version}; {args.ours_jobs:,} jobs ours, {args.jobs:,} a peer at most, {args.single:,} one by one.",
            f"{machine}.",
            "",
            f"Enqueue (best peers: {best[0]}, {best[1]})",
            table(("", "one by one", "ratio", "in bulk", "ratio"), enqueue),
            "",
            f"Drain with one worker process (best peers: {best[2]}, {best[3]})",
            table(("", "results off", "ratio", "results on", "ratio"), drain),
            "",
            "What a drained job costs: processor time of worker and server, commands in Redis; and the worker's start and peak memory",
            table(("", *(f"{cost}, {side}" for side in ("off", "on") for cost in COSTS)), costs),
            runs.memory(),
            "",
            *settings,
            *(f"{name} FAILED: {error}" for name, errors in runs.errors.items() for error in errors),
        ]
    )


def document(args: argparse.Namespace, runs: Runs, machine: Machine, version: str) -> dict[str, Any]:
    """Return all that was measured, for programs."""
    return {
        "bench": "queue",
        "server": version,
        "machine": machine.facts(),
        "rounds": args.rounds,
        "jobs": {"ours": args.ours_jobs, "peers": args.jobs, "single": args.single},
        "best_peer": {"results_off": runs.best("drain", (False,)), "results_on": runs.best("drain", (True,))},
        "contenders": {
            name: {
                "concurrency": args.concurrency.get(name, PEERS[name].concurrency),
                "jobs": jobs_of(PEERS[name], args),
                "settings": PEERS[name].settings,
                "pins": PEERS[name].pins,
                "errors": runs.errors.get(name, []),
                "results_off": [one and one.plain() for one in runs.figures.get((name, False), ())],
                "results_on": [one and one.plain() for one in runs.figures.get((name, True), ())],
            }
            for name in args.only
        },
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments(typed: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PEERS), help="contenders, with commas (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=8_000, help="how many jobs a peer drains at most")
    parser.add_argument("--ours-jobs", type=int, default=100_000, help="how many asyncworker drains")
    parser.add_argument("--single", type=int, default=2_000, help="how many are enqueued one by one")
    parser.add_argument("--cap", type=float, default=300, help="seconds after which a turn is given up")
    parser.add_argument("--concurrency", action="append", default=[], metavar="NAME=N", help="instead of the roster's")
    parser.add_argument("--small", action="store_true", help="ours and the bound, 500 jobs, one round")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    args = parser.parse_args(typed)
    if args.small:
        args.only, args.rounds, args.ours_jobs, args.single = "asyncworker,bound", 1, 500, 50
    args.only = args.only.split(",")
    if unknown := [name for name in args.only if name not in PEERS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    args.concurrency = {name: int(count) for name, _, count in (one.partition("=") for one in args.concurrency)}
    return args


async def run(args: argparse.Namespace) -> int:
    loop, whole = asyncio.get_running_loop(), asyncio.current_task()
    if whole is not None:
        loop.add_signal_handler(signal.SIGTERM, whole.cancel)
    machine, runs = Machine(), Runs()
    for name in args.only:
        wanted = (PEERS[name].module, PEERS[name].pins) if PEERS[name].pins or args.small else (OURS, dependencies())
        try:
            await asyncio.to_thread(python, *wanted)
        except RuntimeError as exc:
            runs.errors[name] = [str(exc)] * GIVE_UP
    with Server() as server:
        version = server.version
        try:
            await measure(args, server, machine, runs)
        finally:
            if runs.figures:
                facts = (args, runs, machine, version)
                print(json.dumps(document(*facts), indent=2) if args.json else report(*facts), flush=True)
    return 1 if runs.errors else 0


def main() -> int:
    try:
        return asyncio.run(run(arguments()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; all processes were ended")
        return 130


if __name__ == "__main__":
    sys.exit(main())
