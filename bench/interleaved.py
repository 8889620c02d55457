"""One question to all contenders in turn: rounds in an order that rotates, ratios to the best peer of each row, a report.

What differs from question to question is the turn (what a contender is made to do, and its figures) and the rows;
the rest is here: options, capped turns, failures that are told, tables and JSON, an end that leaves nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import psutil

from bench.child import ChildError
from bench.environment import python
from bench.peers.roster import Peer, contenders
from bench.report import Machine, table, told
from bench.server import Server

GIVE_UP = 2
"""After so many failed turns a contender gets no more."""


@dataclass(frozen=True)
class Row:
    """One figure of a turn: its name, what it is called, how it is told, and whether more of it is better.

    ``better`` is "more", "less", or "" for a figure that has no ratio.
    """

    name: str
    head: str
    better: str = "more"
    form: str = ",.0f"


@dataclass(frozen=True)
class Setting:
    """One turn to be made."""

    name: str
    peer: Peer
    server: Server
    jobs: int


Turn = Callable[[Setting], Awaitable[dict[str, float]]]


@dataclass(frozen=True)
class Question:
    """What is asked: the turn answers with a figure for each row."""

    name: str
    text: str
    turn: Turn
    rows: tuple[Row, ...]
    jobs: int
    small: int
    tell: Callable[[str, Peer], str]
    """What a contender's line says of its settings, beyond the roster's."""
    bound: bool = True
    cap: float = 120

    @property
    def peers(self) -> dict[str, Peer]:
        return {name: peer for name, peer in contenders(self.name).items() if self.bound or name != "bound"}


@dataclass
class Answers:
    """What was measured so far: for each contender a figure or None a round, and what went wrong."""

    question: Question
    figures: dict[str, list[dict[str, float] | None]] = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)

    def of(self, name: str, row: Row) -> list[float | None]:
        return [None if one is None else one[row.name] for one in self.figures.get(name, ())]

    def best(self, row: Row) -> str:
        """Return the peer with the best median, "" where none was measured."""
        found = {
            name: median(figures)
            for name, peer in self.question.peers.items()
            if not peer.ours and (figures := [one for one in self.of(name, row) if one is not None])
        }
        choose = min if row.better == "less" else max
        return choose(found, key=lambda name: found[name]) if found and row.better else ""

    def ratios(self, name: str, row: Row) -> list[float]:
        """Return how many times as good as the best peer, round by round: above 1 is better, whatever the figure."""
        both = zip(self.of(name, row), self.of(self.best(row), row), strict=False)
        pairs = [(own, theirs) for own, theirs in both if own and theirs]
        return [theirs / own if row.better == "less" else own / theirs for own, theirs in pairs]


async def measure(args: argparse.Namespace, question: Question, server: Server, machine: Machine, to: Answers) -> None:
    """Give every contender its turns, round by round."""
    names = args.only
    for number in range(args.rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            if len(to.errors.get(name, ())) >= GIVE_UP:
                continue
            machine.probe()
            setting = Setting(name, question.peers[name], server, args.jobs)
            figures, error = None, ""
            try:
                async with asyncio.timeout(args.cap):
                    figures = await question.turn(setting)
            except TimeoutError:
                error = f"not done after {args.cap:g} s"
            except (ChildError, OSError, LookupError, ValueError, psutil.Error) as exc:
                error = f"{type(exc).__name__}: {exc}"
            to.figures.setdefault(name, []).append(figures)
            if error:
                to.errors.setdefault(name, []).append(error)
            row = question.rows[0]
            say(f"round {number + 1}  {name:20} {error or f'{row.head} {(figures or {})[row.name]:{row.form}}'}")


def report(args: argparse.Namespace, question: Question, answers: Answers, machine: Machine, version: str) -> str:
    """Return the table for people."""
    heads = [head for row in question.rows for head in ((row.head, "ratio") if row.better else (row.head,))]
    lines = []
    for name in args.only:
        line = [name]
        for row in question.rows:
            line.append(told([one for one in answers.of(name, row) if one is not None], row.form))
            if row.better:
                line.append(told(answers.ratios(name, row), ".2f"))
        lines.append(line)
    best = [f"{row.head}: {answers.best(row) or 'nobody'}" for row in question.rows if row.better]
    return "\n".join(
        [
            question.text.partition("\n")[0],
            f"Median [lowest-highest] of {args.rounds} rounds of {args.jobs:,}; ratios: times as good as the best peer.",
            f"Best peers: {', '.join(best)}. {version}.",
            f"{machine}.",
            "",
            table(("", *heads), lines),
            "",
            *(f"{name}: {_settings(question, name)}" for name in args.only),
            *(f"{name} FAILED: {error}" for name, errors in answers.errors.items() for error in errors),
        ]
    )


def document(
    args: argparse.Namespace, question: Question, answers: Answers, machine: Machine, version: str
) -> dict[str, Any]:
    """Return all that was measured, for programs."""
    return {
        "bench": question.name,
        "server": version,
        "machine": machine.facts(),
        "rounds": args.rounds,
        "jobs": args.jobs,
        "best_peer": {row.name: answers.best(row) for row in question.rows if row.better},
        "contenders": {
            name: {
                "settings": _settings(question, name),
                "pins": question.peers[name].pins,
                "errors": answers.errors.get(name, []),
                "figures": answers.figures.get(name, []),
                "ratios": {row.name: answers.ratios(name, row) for row in question.rows if row.better},
            }
            for name in args.only
        },
    }


def _settings(question: Question, name: str) -> str:
    peer = question.peers[name]
    return "; ".join([question.tell(name, peer), peer.settings, ", ".join(peer.pins) or "this checkout"])


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments(question: Question, typed: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=question.text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(question.peers), help="contenders, with commas (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=question.jobs, help="how many a turn (default: %(default)s)")
    parser.add_argument("--cap", type=float, default=question.cap, help="seconds after which a turn is given up")
    parser.add_argument("--small", action="store_true", help="ours alone (and the bound), few jobs, one round")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    args = parser.parse_args(typed)
    if args.small:
        args.only = ",".join(name for name in ("asyncworker", "bound") if name in question.peers)
        args.rounds, args.jobs = 1, question.small
    args.only = args.only.split(",")
    if unknown := [name for name in args.only if name not in question.peers]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(question.peers)}")
    return args


async def run(question: Question, args: argparse.Namespace) -> int:
    loop, whole = asyncio.get_running_loop(), asyncio.current_task()
    if whole is not None:
        loop.add_signal_handler(signal.SIGTERM, whole.cancel)
    machine, answers = Machine(), Answers(question)
    for name in args.only:
        try:
            await asyncio.to_thread(python, question.peers[name].module, question.peers[name].pins)
        except RuntimeError as exc:
            answers.errors[name] = [str(exc)] * GIVE_UP
    with Server() as server:
        version = server.version
        try:
            await measure(args, question, server, machine, answers)
        finally:
            if answers.figures:
                facts = (args, question, answers, machine, version)
                print(json.dumps(document(*facts), indent=2) if args.json else report(*facts), flush=True)
    return 1 if answers.errors else 0


def main(question: Question) -> int:
    args = arguments(question)
    try:
        return asyncio.run(run(question, args))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; all processes were ended")
        return 130
