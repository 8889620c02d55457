"""An engine with tasks of each kind: quick, slow, failing, long, and such as have hostile names."""

from __future__ import annotations

import asyncio
import os

from asyncworker import Engine

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=document.body.append('owned')>",
    '"><svg onload=alert(1)>',
    "'-alert(1)-'",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)//",
    "</textarea></title></style><iframe srcdoc='<b>owned</b>'>",
    "<button hx-post=/queues hx-trigger=load hx-vals=js:alert(1)>",
    "a\u202egnp.exe\x1b[31m\r\nline",
)
"""What an attacker might call a task, a queue or a worker, or put into arguments and errors."""

QUEUES = ("priority", "default", "mail", "scheduled", "cpu_intensive")


def make() -> Engine:
    """Return the engine as the environment says, as a worker's command does it."""
    engine = Engine(
        os.environ.get("ASYNCWORKER_BROKER", "memory://"),
        namespace=os.environ.get("ASYNCWORKER_NAMESPACE", "asyncworker"),
        queues=QUEUES,
        lease=5.0,
        grace_period=2.0,
    )
    engine.task(queue="priority", priority=9)(charge)
    engine.task(queue="mail", timeout=30)(mail)
    engine.task(max_attempts=1)(refund)
    engine.task(max_attempts=5, retry_backoff=30.0)(fetch)
    engine.task(timeout=None)(watch)
    engine.cron("0 3 * * *", tz="Europe/Berlin")(report)
    engine.mapper(slowly)
    engine.reducer(Total)
    for name in HOSTILE:
        engine.task(name=name, max_attempts=1)(echo)
    return engine


async def charge(order: int) -> int:
    await price(order)
    return order


async def price(order: int) -> int:
    await asyncio.sleep(0.004)
    return sum(number * number for number in range(3_000 + order % 7)) % 97


async def mail(to: str) -> str:
    await asyncio.sleep(0.02)
    await render(to)
    return f"sent to {to}"


async def render(to: str) -> str:
    await asyncio.sleep(0.002)
    return "".join(sorted(to * 300))


async def refund(order: int, note: str = "") -> None:
    raise ValueError(f"order {order} was never paid {note}".strip())


async def fetch(url: str) -> None:
    raise ConnectionError(f"no answer from {url}")


async def watch(channel: str) -> None:
    await asyncio.sleep(3600)


async def report() -> str:
    return "nothing new"


async def slowly(item: dict[str, int], params: dict[str, float]) -> int:
    await asyncio.sleep(params["seconds"])
    return item["n"]


class Total:
    """The sum of what was mapped."""

    def initial(self, params: dict[str, float]) -> int:
        return 0

    def fold(self, so_far: int, value: int) -> int:
        return so_far + value

    def merge(self, one: int, other: int) -> int:
        return one + other

    def finish(self, total: int, params: dict[str, float]) -> int:
        return total


async def echo(text: str) -> None:
    raise RuntimeError(text)
