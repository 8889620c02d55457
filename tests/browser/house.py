"""A fleet with its dashboard, in a thread of its own: a real server, real worker processes, jobs in store."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from asyncworker import Engine
from asyncworker.daemon import pages
from asyncworker.daemon.actions import Actions
from asyncworker.daemon.views import Views
from asyncworker.daemon.web import Address, serving
from asyncworker.fleet.manager import DynamicWorkerManager
from tests.browser import shop
from tests.support import servers

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
FOLDER = "ASYNCWORKER_SCREENSHOTS"
"""The variable that names the folder for screenshots; without it none are taken."""
TARGET = "tests.browser.shop:make"
PATIENCE_S = 50.0


class House:
    """An engine, its workers' manager, and the address of its dashboard."""

    def __init__(self, engine: Engine, manager: DynamicWorkerManager, url: str) -> None:
        self.engine, self.manager, self.url = engine, manager, url
        self.loop = asyncio.get_running_loop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something in the fleet's loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something in the fleet's loop; cancel what is returned."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


@contextmanager
def opened(fill: Callable[[House], Awaitable[None]], names: tuple[str, ...] = ()) -> Iterator[House]:
    """Give a house that *fill* has filled; *names* are those of its workers, beside one that names itself."""
    made: Future[House] = Future()
    over: Future[Callable[[], object]] = Future()

    async def live(url: str) -> None:
        leave, loop = asyncio.Event(), asyncio.get_running_loop()
        over.set_result(lambda: loop.call_soon_threadsafe(leave.set))
        async with _house(url, names) as house:
            filling = asyncio.ensure_future(fill(house))
            leaving = asyncio.create_task(leave.wait())
            await asyncio.wait([filling, leaving], return_when=asyncio.FIRST_COMPLETED)
            filling.cancel()
            if not leaving.done():
                await filling
                made.set_result(house)
            await leaving

    def run(url: str) -> None:
        try:
            asyncio.run(live(url))
        except BaseException as exc:
            if made.done():
                raise
            made.set_exception(exc)

    server = servers.valkey()
    thread = threading.Thread(target=run, args=(next(server),), name="house")
    thread.start()
    try:
        yield made.result(PATIENCE_S)
    finally:
        if thread.is_alive():
            over.result(PATIENCE_S)()
        thread.join(PATIENCE_S)
        next(server, None)


@asynccontextmanager
async def _house(url: str, names: tuple[str, ...]) -> AsyncIterator[House]:
    variables = {"ASYNCWORKER_BROKER": url, "ASYNCWORKER_NAMESPACE": "shop"}
    with mock.patch.dict(os.environ, variables):
        engine = shop.make()
    others = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCWORKER_")}
    environment = {**others, **variables, "PYTHONPATH": str(ROOT), "ASYNCWORKER_LOG_LEVEL": "error"}
    async with engine:
        manager = DynamicWorkerManager(
            TARGET, engine.broker, queues=engine.queues, environment=environment, min_workers=1, max_workers=4
        )
        async with manager:
            for name in names:
                await manager.start_worker(name)
            async with _served(engine, manager) as address:
                yield House(engine, manager, address)


@asynccontextmanager
async def _served(engine: Engine, manager: DynamicWorkerManager) -> AsyncIterator[str]:
    views, actions = Views(engine, manager, show_arguments=True), Actions(engine, manager)
    dashboard = pages.Pages(views, actions)
    async with serving(Address(port=0), None, views, actions, dashboard.routes(), dress=[dashboard.dress()]) as url:
        yield url
