"""The Redis broker's own end of the wire: lost answers, dropped connections, servers that come and go, refusals.

What every broker must do stands in `tests/contracts/test_broker.py`; what the script does in `test_redis_script.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from asyncworker.errors import (
    AsyncWorkerError,
    BadParameters,
    BrokerDown,
    BrokerError,
    JobTooBig,
    LeaseLost,
    QueueFull,
    SettingsError,
)
from asyncworker.events import BrokerDisrupted, BrokerRestored, Bus
from asyncworker.lifeline import Child
from asyncworker.queue import parcel, server
from asyncworker.queue.brokers import redis
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, Ids
from asyncworker.queue.job import Claimed, Ended, Job, Op, Receipt, Settled, State, WorkerCard
from asyncworker.queue.wire import Wire
from tests.support.proxy import Proxy, proxy
from tests.support.redis_script import LIBRARY, Raw
from tests.support.servers import DEBIAN_REDIS, long_lived

PATIENCE = 0.4
TTL = 600
new_id = Ids()
_names = itertools.count()


def job(id: str = "", queue: str = "q", payload: bytes = b"call", **more: Any) -> Job:
    return Job(id=id or new_id(), queue=queue, payload=payload, **more)


def card(lease_s: float = 30.0) -> WorkerCard:
    return WorkerCard("host", 1, ("q",), 5, lease_s, 0.0)


def done(id: str, *, plain: bool = True) -> Settled:
    return Settled(id, Op.SUCCEEDED, "q", TTL, b"record", plain)


def ids_of(claimed: Claimed) -> list[str]:
    return [delivery.id for delivery in claimed.deliveries]


async def until(look: Callable[[], Any], patience: float = 10.0) -> None:
    """Return when *look* sees something."""
    async with asyncio.timeout(patience):
        while not look():
            await asyncio.sleep(0.002)


OPEN: list[RedisBroker] = []


def make(url: str, bus: Bus | None = None, patience: float = 5.0, namespace: str = "") -> RedisBroker:
    """Return a broker that is closed with the test."""
    namespace = namespace or f"test-redis-{next(_names)}"
    OPEN.append(RedisBroker(url, namespace=namespace, bus=bus, patience=patience))
    return OPEN[-1]


@pytest.fixture(autouse=True)
async def _closes_brokers() -> AsyncIterator[None]:
    yield
    while OPEN:
        await OPEN.pop().close()


def raw_answer(url: str, *command: Any) -> Any:
    raw = Raw(url)
    try:
        return raw(*command)
    finally:
        raw.close()


@pytest.fixture
async def between(redis_url: str) -> AsyncIterator[Proxy]:
    async with proxy(redis_url) as running:
        yield running


@pytest.fixture
async def broker(between: Proxy) -> RedisBroker:
    return make(between.url)


@pytest.fixture
async def epoch(broker: RedisBroker) -> str:
    return await broker.join(card(), lambda _: None)


class Outages:
    """Listens to what a broker tells of its outages."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.heard: list[Any] = []
        self.bus.listen(BrokerDisrupted, self.heard.append)
        self.bus.listen(BrokerRestored, self.heard.append)

    @property
    def kinds(self) -> list[type]:
        return [type(event) for event in self.heard]


# ---------------------------------------------------------------------------------------------------- lost answers


async def test_a_step_whose_answer_is_lost_is_applied_once(between: Proxy, broker: RedisBroker, epoch: str):
    ids = [(await broker.enqueue([one := job()])) and one.id for _ in range(4)]
    assert ids_of(await broker.step(epoch, [], {"q": 2}, 2)) == ids[:2]
    between.lose_answers(b"_step")
    claimed = await broker.step(epoch, [done(ids[0])], {"q": 1}, 1)
    assert claimed.held == {ids[1], ids[2]}
    assert set(ids_of(claimed)) == {ids[1], ids[2]}
    assert await broker.wait([ids[0]], 0) == [Ended(State.SUCCEEDED, b"record")]
    depth = (await broker.depth(["q"])).queues["q"]
    assert (depth.succeeded, depth.queued) == (1, 1)
    claimed = await broker.step(epoch, [], {"q": 9}, 9)
    assert (ids_of(claimed), claimed.held) == (ids[3:], None)


async def test_a_drain_with_every_third_answer_lost(between: Proxy, broker: RedisBroker, epoch: str):
    jobs = [job() for _ in range(300)]
    between.lose_answers(b"_enqueue", b"_enqueue")
    for start in range(0, 300, 60):
        assert await broker.enqueue(jobs[start : start + 60]) == [Receipt.ACCEPTED] * 60
    runs: list[str] = []
    settled: list[Settled] = []
    for turn in itertools.count():
        if turn % 3 == 2:
            between.lose_answers(b"_step")
        claimed = await broker.step(epoch, settled, {"q": 40}, 40)
        fresh = [id for id in ids_of(claimed) if id not in runs]
        runs += fresh
        settled = [done(id, plain=int(id[-1], 36) % 2 == 0) for id in fresh]
        if not claimed.deliveries:
            break
    assert sorted(runs) == [one.id for one in jobs], "each ran once"
    depth = await broker.depth(["q"])
    assert (depth.queues["q"].succeeded, depth.running) == (300, 0)


async def test_an_enqueue_whose_answer_is_lost_adds_once(between: Proxy, broker: RedisBroker):
    first, second, orphan = job(), job(), job(f"{new_id()}.0")
    await broker.enqueue([first])
    between.lose_answers(b"_enqueue", b"_enqueue")
    receipts = await broker.enqueue([first, second, orphan, job(delay_s=9)])
    assert receipts == [Receipt.KNOWN, Receipt.ACCEPTED, Receipt.CLOSED, Receipt.ACCEPTED]
    depth = (await broker.depth(["q"])).queues["q"]
    assert (depth.enqueued, depth.queued, depth.scheduled) == (3, 2, 1)


@pytest.mark.parametrize("verb", ["join", "reap", "find", "cancel", "depth", "wait", "look"])
async def test_any_answer_may_be_lost(between: Proxy, broker: RedisBroker, epoch: str, verb: str):
    await broker.enqueue([one := job()])
    between.lose_answers(b"_" + verb.encode())
    async with asyncio.timeout(5):
        match verb:
            case "join":
                other = await broker.join(card(), lambda _: None)
                assert set((await broker.depth([])).workers) == {epoch, other}
            case "reap":
                await broker.step(epoch, [], {"q": 1}, 1)
                assert await broker.reap(epoch, "", crashed=True) == -1, "gone, as the first copy said"
                assert (await broker.depth(["q"])).queues["q"].redelivered == 1
            case "find":
                (found,) = await broker.find([one.id])
                assert found is not None
                assert found.state is State.QUEUED
            case "cancel":
                assert await broker.cancel(one.id) is State.CANCELLED
            case "depth":
                assert (await broker.depth(["q"])).queues["q"].queued == 1
            case "look":
                assert await broker.wait([one.id], 0) == [None]
            case "wait":
                waiting = asyncio.ensure_future(broker.wait([one.id], 5))
                await until(lambda: not between._lost)
                await broker.step(epoch, [], {"q": 1}, 1)
                await broker.step(epoch, [done(one.id)], {}, 0)
                assert await waiting == [Ended(State.SUCCEEDED, b"record")]
    assert not between._lost


async def test_a_late_copy_of_a_step_changes_nothing(between: Proxy, broker: RedisBroker, epoch: str):
    await broker.enqueue([first := job(), second := job(), job()])
    await broker.step(epoch, [], {"q": 1}, 1)
    between.keep_request(b"_step")
    assert ids_of(await broker.step(epoch, [done(first.id)], {"q": 1}, 1)) == [second.id]
    await broker.step(epoch, [], {}, 0)
    before = await broker.depth(["q"])
    (answer,) = await between.deliver_late()
    assert answer == b"*1\r\n:-4\r\n"
    after = await broker.depth(["q"])
    assert (after.queues["q"].succeeded, after.queues["q"].queued, after.running) == (1, 1, 1)
    assert before.running == after.running


async def test_a_late_copy_of_an_enqueue_adds_nothing(between: Proxy, broker: RedisBroker, epoch: str):
    between.keep_request(b"_enqueue")
    await broker.enqueue([one := job()])
    await broker.step(epoch, [], {"q": 1}, 1)
    await broker.step(epoch, [Settled(one.id, Op.SUCCEEDED, "q", 0, b"", plain=True)], {}, 0)
    assert await broker.find([one.id]) == [None], "nothing is left by which it would be known"
    (answer,) = await between.deliver_late()
    assert answer.startswith(b"*2\r\n:1\r\n"), "the same call: the same answer"
    assert await broker.find([one.id]) == [None]
    between.keep_request(b"_enqueue")
    await broker.enqueue([job()])
    await broker.enqueue([job()])
    (answer,) = await between.deliver_late()
    assert answer == b"*1\r\n:-4\r\n"
    assert (await broker.depth(["q"])).queues["q"].enqueued == 3


async def test_a_cancelled_step_is_made_good_by_the_next(between: Proxy, broker: RedisBroker, epoch: str):
    await broker.enqueue([first := job(), second := job()])
    await broker.step(epoch, [], {"q": 1}, 1)
    between.delay_s = 0.05
    for applied in (True, False):
        sent = len(between.requests)
        if not applied:
            between.freeze()
        stepping = asyncio.ensure_future(broker.step(epoch, [done(first.id)], {"q": 1}, 1))
        await until(lambda sent=sent: len(between.requests) > sent or not between._flowing.is_set())
        if applied:
            await asyncio.to_thread(until_held, between.upstream, broker, epoch, second.id)
        else:
            await asyncio.sleep(0)
        stepping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stepping
        between.thaw()
        claimed = await broker.step(epoch, [done(first.id)], {"q": 1}, 1)
        assert claimed.held == {second.id}
        assert ids_of(claimed) == [second.id]
    depth = await broker.depth(["q"])
    assert (depth.queues["q"].succeeded, depth.running) == (1, 1)


def until_held(url: str, broker: RedisBroker, epoch: str, id: str) -> None:
    """Return when the server knows that *epoch* holds a job."""
    raw = Raw(url)
    while not raw("HEXISTS", f"{broker._tag}a:{epoch}", id):
        pass
    raw.close()


async def test_a_cancelled_call_does_not_leave_its_answer_to_the_next(between: Proxy, broker: RedisBroker):
    await broker.enqueue([one := job()])
    await broker.find([one.id])
    before = between.connections
    between.delay_s = 0.05
    finding = asyncio.ensure_future(broker.find([one.id]))
    sent = len(between.requests)
    await until(lambda: len(between.requests) > sent)
    finding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finding
    between.delay_s = 0.0
    assert (await broker.depth(["q"])).queues["q"].queued == 1
    assert between.connections == before + 1


async def test_an_answer_that_is_an_error_keeps_the_connection(between: Proxy, broker: RedisBroker):
    await broker.enqueue([one := job()])
    raw_answer(between.upstream, "SET", f"{broker._tag}x", "no hash")
    for _ in range(3):
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await broker.find([one.id])
    before = between.connections
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        await broker.find([one.id])
    assert between.connections == before


# ------------------------------------------------------------------------------------------------ outages


async def test_steps_wait_and_others_give_up(between: Proxy):
    outages = Outages()
    broker = make(between.url, outages.bus, PATIENCE)
    epoch = await broker.join(card(), lambda _: None)
    await broker.enqueue([one := job()])
    between.refusing = True
    between.cut()
    stepping = asyncio.ensure_future(broker.step(epoch, [], {"q": 1}, 1))
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: broker.enqueue([job()]),
        lambda: broker.find([one.id]),
        lambda: broker.wait([one.id], 0),
        lambda: broker.cancel(one.id),
        lambda: broker.depth(["q"]),
        lambda: broker.join(card(), lambda _: None),
        lambda: broker.reap("somebody", "", crashed=True),
        lambda: asyncio.to_thread(broker.beat, epoch),
    ]
    answers = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    assert [type(answer) for answer in answers] == [BrokerDown] * len(calls)
    assert not stepping.done()
    between.refusing = False
    assert ids_of(await stepping) == [one.id]
    assert outages.kinds == [BrokerDisrupted, BrokerRestored]
    disrupted, restored = outages.heard
    assert disrupted.broker == restored.broker == str(broker._address)
    assert restored.outage_s >= PATIENCE
    assert await asyncio.to_thread(broker.beat, epoch)
    assert (await broker.depth(["q"])).queues["q"].enqueued == 1


async def test_half_open_connections_are_noticed(between: Proxy):
    broker = make(between.url, patience=PATIENCE)
    told: list[str] = []
    epoch = await broker.join(card(), told.append)
    await broker.enqueue([one := job(), other := job()])
    await broker.step(epoch, [], {"q": 2}, 2)
    waiting = asyncio.ensure_future(broker.wait([one.id], None))
    await waiting_for(broker, between, one.id)
    between.freeze()
    for call in (lambda: broker.find([one.id]), lambda: broker.enqueue([job()])):
        with pytest.raises(BrokerDown):
            await call()
    with pytest.raises(BrokerDown):
        await asyncio.to_thread(broker.beat, epoch)
    stepping = asyncio.ensure_future(broker.step(epoch, [done(one.id)], {}, 0))
    before = between.connections
    await until(lambda: between.connections >= before + 2)  # of the step and of the subscription
    between.thaw()
    await stepping
    assert await waiting == [Ended(State.SUCCEEDED, b"record")]
    await until(lambda: told)
    assert await broker.cancel(other.id) is State.RUNNING
    await until(lambda: other.id in told)


async def waiting_for(broker: RedisBroker, between: Proxy, id: str) -> None:
    """Return when a wait is known to the server, and its first answer to the broker."""

    def until_noted() -> None:
        raw = Raw(between.upstream)
        while not raw("HEXISTS", f"{broker._tag}x", id):
            pass
        raw.close()

    await asyncio.to_thread(until_noted)
    await broker.find([id])


async def test_a_cancellation_that_nobody_heard_is_looked_up(between: Proxy, broker: RedisBroker):
    told: list[str] = []
    epoch = await broker.join(card(), told.append)
    await broker.enqueue([one := job(), other := job()])
    await broker.step(epoch, [], {"q": 2}, 2)
    between.refusing = True
    between.cut()
    async with direct(between, broker) as beside:
        assert await beside.cancel(one.id) is State.RUNNING
    between.refusing = False
    await until(lambda: one.id in told)
    assert other.id not in told


async def test_what_happened_while_nobody_listened_is_looked_up(between: Proxy, broker: RedisBroker):
    told: list[str] = []
    epoch = await broker.join(card(), told.append)
    await broker.enqueue([one := job(), gone := job(), other := job()])
    await broker.step(epoch, [], {"q": 2}, 2)
    waits = [asyncio.ensure_future(broker.wait([id], None)) for id in (one.id, gone.id, other.id)]
    for id in (one.id, gone.id, other.id):
        await waiting_for(broker, between, id)
    between.refusing = True
    between.cut()
    raw = Raw(between.upstream)
    raw("HDEL", f"{broker._tag}e", gone.id)
    raw("HDEL", f"{broker._tag}x", gone.id)
    async with direct(between, broker) as beside:
        beside._members[epoch] = replace(broker._members[epoch], script=beside._script)
        await beside.step(epoch, [done(one.id)], {}, 0)
    between.refusing = False
    assert await waits[0] == [Ended(State.SUCCEEDED, b"record")]
    with pytest.raises(AsyncWorkerError, match="no job has the id"):
        await waits[1]
    await until(lambda: "" in told)
    assert not waits[2].done()
    assert await broker.cancel(other.id) is State.QUEUED
    assert await waits[2] == [Ended(State.CANCELLED, b"")]
    raw.close()


class direct:  # noqa: N801 - reads like a function
    """A second broker on the same keys that does not go through the proxy."""

    def __init__(self, between: Proxy, broker: RedisBroker) -> None:
        namespace = broker._tag.removeprefix("{").removesuffix(":0}:")
        self.broker = make(between.upstream, namespace=namespace)

    async def __aenter__(self) -> RedisBroker:
        return self.broker

    async def __aexit__(self, *exc: object) -> None:
        await self.broker.close()


async def test_a_server_is_killed_and_comes_back(tmp_path: Path):
    first = server.start(tmp_path)
    with long_lived(first.pid):
        async with proxy(first.url) as between:
            outages = Outages()
            broker = make(between.url, outages.bus)
            epoch = await broker.join(card(), lambda _: None)
            jobs = [job() for _ in range(50)]
            await broker.enqueue(jobs)
            claimed = await broker.step(epoch, [], {"q": 10}, 10)
            assert len(claimed.deliveries) == 10
            os.kill(first.pid, signal.SIGKILL)
            stepping = asyncio.ensure_future(broker.step(epoch, list(map(done, ids_of(claimed))), {"q": 10}, 10))
            sending = asyncio.ensure_future(broker.enqueue([job()]))
            await until(lambda: outages.heard)
            await asyncio.to_thread(first.stop)
            second = await asyncio.to_thread(server.start, tmp_path)
            with long_lived(second.pid):
                between.upstream = second.url
                claimed = await stepping
                assert await sending == [Receipt.ACCEPTED]
                assert len(claimed.deliveries) == 10
                depth = (await broker.depth(["q"])).queues["q"]
                assert (depth.succeeded, depth.enqueued) == (10, 51)
                assert outages.kinds == [BrokerDisrupted, BrokerRestored]
                await broker.close()
                await asyncio.to_thread(second.stop)


async def test_a_server_comes_back_with_nothing():
    first = server.start()
    with long_lived(first.pid):
        async with proxy(first.url) as between:
            broker = make(between.url)
            epoch = await broker.join(card(), lambda _: None)
            await broker.enqueue([one := job()])
            await asyncio.to_thread(first.stop)
            second = await asyncio.to_thread(server.start)
            with long_lived(second.pid):
                between.upstream = second.url
                with pytest.raises(LeaseLost):
                    await broker.step(epoch, [], {"q": 1}, 1)
                assert await broker.find([one.id]) == [None]
                assert await broker.enqueue([one]) == [Receipt.ACCEPTED]
                with pytest.raises(LeaseLost):
                    await asyncio.to_thread(broker.beat, epoch)
                await broker.close()
                await asyncio.to_thread(second.stop)


async def test_a_replica_refuses_until_the_name_is_the_new_masters(redis_url: str, own: server.Server):
    raw_answer(own.url, "REPLICAOF", "127.0.0.1", "1")
    async with proxy(own.url) as between:
        outages = Outages()
        broker = make(between.url, outages.bus)
        sending = asyncio.ensure_future(broker.enqueue([job()]))
        await until(lambda: outages.heard)
        between.upstream = redis_url  # its connection to the replica is in order
        assert await sending == [Receipt.ACCEPTED]
        assert outages.kinds == [BrokerDisrupted, BrokerRestored]
        await broker.close()
    raw_answer(own.url, "REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize("verb", ["step", "enqueue", "beat"])
async def test_functions_that_are_missing_are_loaded(redis_url: str, verb: str):
    broker = make(redis_url)
    epoch = await broker.join(card(), lambda _: None)
    raw = Raw(redis_url)
    raw("FUNCTION", "DELETE", LIBRARY)
    match verb:
        case "step":
            assert await broker.step(epoch, [], {"q": 1}, 1)
        case "enqueue":
            assert await broker.enqueue([job()]) == [Receipt.ACCEPTED]
        case "beat":
            assert await asyncio.to_thread(broker.beat, epoch)
    names = [dict(zip(one[::2], one[1::2], strict=True))[b"library_name"].decode() for one in raw("FUNCTION", "LIST")]
    assert LIBRARY in names
    raw.close()


async def test_functions_that_cannot_be_kept_are_no_endless_loop(redis_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redis, "TEXT", "redis.register_function('test_nothing', function() return 1 end)")
    broker = make(redis_url)
    with pytest.raises(BrokerError, match="Function not found"):
        await broker.enqueue([job()])
    raw_answer(redis_url, "FUNCTION", "DELETE", broker._script._name)


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.fixture(scope="module")
def own() -> Any:
    """A server whose settings a test may change."""
    running = server.start()
    with long_lived(running.pid):
        yield running
        running.stop()


@pytest.fixture
def settings_of(own: server.Server) -> Any:
    client = redis_py.Redis.from_url(own.url)
    yield client
    client = redis_py.Redis.from_url(own.url)
    for password in (None, "geheim"):
        try:
            client = redis_py.Redis.from_url(own.url, password=password)
            client.config_set("requirepass", "")
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
            client.flushall()
        except redis_py.AuthenticationError:
            continue
    client.close()


async def refused(url: str, kind: type[Exception] = SettingsError) -> str:
    """Return what a broker says that cannot be used, with all that hangs on it."""
    broker = make(url, patience=PATIENCE)
    with pytest.raises(kind) as caught:
        await broker.join(card(), lambda _: None)
    with pytest.raises(kind):
        await broker.enqueue([job()])
    with pytest.raises(kind):
        await broker.wait(["0" * 26], 5)
    assert not broker._members
    await broker.close()
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    return repr(broker) + " ".join(str(exc) + repr(exc) for exc in chain)


@pytest.mark.parametrize("password", ["", "falsch"])
async def test_a_wrong_password(own: server.Server, settings_of: redis_py.Redis, password: str):
    settings_of.config_set("requirepass", "geheim")
    socket = own.url.removeprefix("unix://")
    said = await refused(f"unix://:{password}@{socket}" if password else own.url)
    assert "password" in said
    assert "falsch" not in said
    broker = make(f"unix://:geheim@{socket}")
    assert await broker.enqueue([job()]) == [Receipt.ACCEPTED]
    assert "geheim" not in repr(broker) + str(broker._address)


async def test_a_user_who_may_not(own: server.Server, settings_of: redis_py.Redis):
    settings_of.acl_setuser("guest", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=["+info"])
    said = await refused(f"unix://guest:pw@{own.url.removeprefix('unix://')}")
    assert "permission" in said
    settings_of.acl_deluser("guest")


async def test_no_such_database(own: server.Server):
    assert "database" in await refused(f"{own.url}?db=4711")


async def test_a_database_of_its_own(own: server.Server):
    broker = make(f"{own.url}?db=3")
    await broker.enqueue([job()])
    assert str(broker._address).endswith("/3")
    with redis_py.Redis.from_url(f"{own.url}?db=3") as client:
        assert client.dbsize()


async def test_nobody_there(tmp_path: Path):
    assert "does not answer" in await refused(f"unix://{tmp_path}/nothing", BrokerDown)


async def test_a_server_that_evicts(own: server.Server, settings_of: redis_py.Redis):
    settings_of.config_set("maxmemory", "1gb")
    settings_of.config_set("maxmemory-policy", "allkeys-lru")
    broker = make(own.url)
    with pytest.raises(SettingsError, match="allkeys-lru"):
        await broker.enqueue([job()])
    settings_of.config_set("maxmemory", "0")
    assert await broker.enqueue([job()]) == [Receipt.ACCEPTED]


@pytest.mark.parametrize(
    ("version", "good"), [("6.2.14", False), ("5.0.0", False), ("7.0.0", True), ("7.2.4", True), ("10.1", True)]
)
async def test_a_server_too_old(monkeypatch: pytest.MonkeyPatch, redis_url: str, version: str, good: bool):
    broker = make(redis_url)
    asked = Wire.__call__

    async def answer(wire: Wire, *command: Any, **more: Any) -> Any:
        if command == ("INFO",):
            return b"# Server\r\nredis_version:%s\r\n" % version.encode()
        return await asked(wire, *command, **more)

    monkeypatch.setattr(Wire, "__call__", answer)
    if good:
        assert await broker.enqueue([job()]) == [Receipt.ACCEPTED]
    else:
        with pytest.raises(SettingsError, match=rf"Redis {version}.*7\.0"):
            await broker.enqueue([job()])
    monkeypatch.undo()


async def test_no_memory_left(own: server.Server, settings_of: redis_py.Redis):
    broker = make(own.url)
    epoch = await broker.join(card(), lambda _: None)
    await broker.enqueue([one := job(), two := job()])
    settings_of.config_set("maxmemory", "1mb")
    with pytest.raises(QueueFull):
        await broker.enqueue([job()])
    assert ids_of(await broker.step(epoch, [], {"q": 2}, 2)) == [one.id, two.id]
    await broker.step(epoch, [done(one.id), done(two.id, plain=False)], {}, 0)
    assert await asyncio.to_thread(broker.beat, epoch)
    assert [ended and ended.state for ended in await broker.wait([one.id, two.id], 0)] == [State.SUCCEEDED] * 2
    settings_of.config_set("maxmemory", "0")
    assert await broker.enqueue([job()]) == [Receipt.ACCEPTED]
    assert (await broker.depth(["q"])).queues["q"].enqueued == 3


async def test_what_does_not_fit_is_refused_before_anything_is_sent(between: Proxy, broker: RedisBroker):
    good = job()
    for bad, kind in (
        (job(payload=bytes(MAX_PAYLOAD_BYTES + 1)), JobTooBig),
        (job(queue=""), BadParameters),
        (job(queue="ü" * 128), BadParameters),
        (job(priority=10), BadParameters),
        (job(options={"no": object()}), BadParameters),
        (job(options={"long": "x" * 70_000}), BadParameters),
        (job(delay_s=float("inf")), BadParameters),
        (job(at_s=float("nan")), BadParameters),
    ):
        with pytest.raises(kind):
            await broker.enqueue([good, bad])
    assert between.connections == 0


@pytest.mark.parametrize("namespace", ["", "a{b", "a}", "a b", "a\nb"])
def test_a_namespace_is_a_word(namespace: str):
    with pytest.raises(SettingsError, match="namespace"):
        redis.open("redis://localhost", namespace=namespace)


async def test_over_tls(tmp_path: Path):
    if not (openssl := shutil.which("openssl")) or not os.access(DEBIAN_REDIS, os.X_OK):
        pytest.skip("needs openssl and Debian's redis-server")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    self_signed = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"]
    names = ["/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    made = [openssl, *self_signed, *names, "-keyout", str(key), "-out", str(cert)]
    await asyncio.to_thread(subprocess.run, made, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tls = ["--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no"]
    settings = ["--bind", "127.0.0.1", "--port", "0", "--tls-port", str(port), "--save", "", "--requirepass", "geheim"]
    child = Child([DEBIAN_REDIS, *settings, *map(str, tls)], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        broker = make(f"rediss://:geheim@localhost:{port}?ssl_ca_certs={cert}")
        epoch = await broker.join(card(), lambda _: None)
        assert await broker.enqueue([job()]) == [Receipt.ACCEPTED]
        assert len((await broker.step(epoch, [], {"q": 1}, 1)).deliveries) == 1
        assert await asyncio.to_thread(broker.beat, epoch)
        stranger = make(f"rediss://:geheim@localhost:{port}", patience=PATIENCE)
        with pytest.raises(BrokerDown, match=r"(?i)certificate"):
            await stranger.enqueue([job()])
        await broker.close()
    finally:
        await asyncio.to_thread(child.stop, signal.SIGKILL)


# ---------------------------------------------------------------------------------------------------- the lane


async def test_callers_who_meet_share_round_trips(between: Proxy, broker: RedisBroker, epoch: str):
    jobs = [job() for _ in range(1500)]
    before = len(between.requests)
    receipts = await asyncio.gather(*(broker.enqueue([one]) for one in jobs))
    assert receipts == [[Receipt.ACCEPTED]] * 1500
    assert len(between.requests) - before < 40  # large calls come in several pieces
    claimed = await broker.step(epoch, [], {"q": 1000}, 1000)
    assert ids_of(claimed) == [one.id for one in jobs[:1000]], "in the order in which they were called"


async def test_those_who_meet_in_an_outage_share_its_end(between: Proxy):
    broker = make(between.url, patience=PATIENCE)
    await broker.enqueue([job()])
    between.refusing = True
    between.cut()
    answers = await asyncio.gather(*(broker.enqueue([job()]) for _ in range(20)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {BrokerDown}
    between.refusing = False
    assert await broker.enqueue([job()]) == [Receipt.ACCEPTED]
    assert (await broker.depth(["q"])).queues["q"].enqueued == 2


async def test_large_jobs_are_sent_in_several_calls(redis_url: str):
    broker = make(redis_url)
    size = MAX_PAYLOAD_BYTES // 3
    jobs = [job(payload=bytes(size)) for _ in range(7)]
    batches = [len(batch) for batch in parcel.batches(jobs)]
    assert batches == [3, 3, 1]
    assert [len(batch) for batch in parcel.batches([job() for _ in range(2500)])] == [1000, 1000, 500]
    assert parcel.batches([]) == []
    assert await broker.enqueue(jobs) == [Receipt.ACCEPTED] * 7
    raw = Raw(redis_url)
    raw("UNLINK", f"{broker._tag}e")
    raw.close()


async def test_runs_and_others_keep_their_order(broker: RedisBroker, epoch: str):
    parent = job(hold=epoch)
    await broker.enqueue([parent])
    jobs = [job(), job(queue="p"), job(), job(f"{parent.id}.0"), job(), job(queue="p", priority=1), job(queue="p")]
    again = [*jobs[:2], job(f"{new_id()}.9"), jobs[3]]
    receipts = await broker.enqueue([*jobs, *again])
    assert receipts == [Receipt.ACCEPTED] * 7 + [Receipt.KNOWN] * 2 + [Receipt.CLOSED, Receipt.KNOWN]
    claimed = await broker.step(epoch, [], {"q": 9, "p": 9}, 9)
    assert ids_of(claimed) == [jobs[n].id for n in (0, 2, 3, 4, 1, 6, 5)]


# ---------------------------------------------------------------------------------------------------- the rest


async def test_two_sweepers_are_elected(redis_url: str):
    broker = make(redis_url)
    epochs = [await broker.join(card(0.3), lambda _: None) for _ in range(4)]

    def beat() -> list[bool]:
        return [broker.beat(epoch) is not None for epoch in epochs]

    assert await asyncio.to_thread(beat) == [True, True, False, False]
    await broker.reap(epochs[0], "", crashed=True)
    del epochs[0]
    assert (await asyncio.to_thread(beat))[0]
    await until(lambda: sum(beat()) == 2)  # the sweeper who is gone is followed after its lease


async def test_beats_come_from_a_thread_of_their_own(redis_url: str):
    broker = make(redis_url)
    epoch = await broker.join(card(), lambda _: None)
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend(broker.beat(epoch) for _ in range(20)))
    thread.start()
    while thread.is_alive():
        await broker.step(epoch, [], {"q": 1}, 1)
    thread.join()
    assert seen[-1][epoch].split(":")[1:] == ["20", "30000"]


async def test_an_epoch_that_is_gone_is_listened_to_no_more(redis_url: str):
    broker = make(redis_url)
    first = await broker.join(card(), lambda _: None)
    second = await broker.join(card(), lambda _: None)
    await broker.reap(first, "", crashed=False)
    raw = Raw(redis_url)
    await until(lambda: raw("PUBSUB", "NUMSUB", f"{broker._tag}in:{first}")[1] == 0)
    assert raw("PUBSUB", "NUMSUB", f"{broker._tag}in:{second}")[1] == 1
    raw("HDEL", f"{broker._tag}b", second)
    with pytest.raises(LeaseLost):
        await broker.step(second, [], {"q": 1}, 1)
    await until(lambda: raw("PUBSUB", "NUMSUB", f"{broker._tag}in:{second}")[1] == 0)
    raw.close()


async def test_somebody_elses_steps(redis_url: str):
    broker = make(redis_url)
    epoch = await broker.join(card(), lambda _: None)
    raw = Raw(redis_url)
    raw("HSET", f"{broker._tag}b", epoch, "9:0:1000")
    with pytest.raises(BrokerError, match="somebody else"):
        await broker.step(epoch, [], {"q": 1}, 1)
    raw("SET", f"{broker._tag}w:{broker._senders['memory']._name}", "9:")
    with pytest.raises(BrokerError, match="somebody else"):
        await broker.enqueue([job()])
    raw.close()


async def test_large_records_are_fetched(broker: RedisBroker, epoch: str):
    await broker.enqueue([one := job()])
    await broker.step(epoch, [], {"q": 1}, 1)
    record = bytes(100_000)
    waiting = asyncio.ensure_future(broker.wait([one.id], None))
    await until(lambda: one.id in broker._waiters)
    await broker.find([one.id])
    await broker.step(epoch, [Settled(one.id, Op.SUCCEEDED, "q", TTL, record, plain=True)], {}, 0)
    assert await waiting == [Ended(State.SUCCEEDED, record)]
    assert broker._waiters == {}


async def test_a_body_that_cannot_be_read_fails_alone(broker: RedisBroker, epoch: str, between: Proxy):
    await broker.enqueue([good := job(), bad := job()])
    raw = Raw(between.upstream)
    raw("HSET", f"{broker._tag}e", bad.id, b"2\xff")
    raw.close()
    claimed = await broker.step(epoch, [], {"q": 2}, 2)
    assert [(one.id, one.payload) for one in claimed.deliveries] == [(good.id, b"call"), (bad.id, b"")]
    await broker.step(epoch, [Settled(bad.id, Op.FAILED, "q", TTL, b""), done(good.id)], {}, 0)
    first, second = await broker.find([good.id, bad.id])
    assert first is not None
    assert second is not None
    assert (first.state, second.state, second.queue) == (State.SUCCEEDED, State.BLOCKED, "")
    assert second.error


@pytest.mark.parametrize("text", [b"\xff\xfe broken", "ü".encode()[:1]])
async def test_why_a_job_comes_back_is_made_readable(broker: RedisBroker, epoch: str, text: bytes):
    await broker.enqueue([one := job()])
    await broker.step(epoch, [], {"q": 1}, 1)
    await broker.step(epoch, [Settled(one.id, Op.RETRY, "q", 0, text)], {}, 0)
    (found,) = await broker.find([one.id])
    assert found is not None
    assert found.error == text.decode(errors="replace")
    (delivery,) = (await broker.step(epoch, [], {"q": 1}, 1)).deliveries
    assert delivery.attempt == 2


# ---------------------------------------------------------------------------------------------------- closing


async def test_closing_ends_all_that_waits(between: Proxy):
    broker = make(between.url)
    epoch = await broker.join(card(), lambda _: None)
    await broker.enqueue([one := job()])
    waiting = asyncio.ensure_future(broker.wait([one.id], None))
    await waiting_for(broker, between, one.id)
    between.freeze()
    calls = [asyncio.ensure_future(broker.enqueue([job()])) for _ in range(3)]
    calls += [asyncio.ensure_future(broker.step(epoch, [], {"q": 1}, 1)), asyncio.ensure_future(broker.find([one.id]))]
    calls.append(asyncio.ensure_future(broker.find([one.id])))
    await asyncio.sleep(0)
    await broker.close()
    answers = await asyncio.wait_for(asyncio.gather(waiting, *calls, return_exceptions=True), 1)
    assert [type(answer) for answer in answers] == [BrokerDown] * 7
    between.thaw()


async def test_closing_while_it_listens_for_the_first_time(between: Proxy):
    broker = make(between.url)
    between.freeze()
    calls = [asyncio.ensure_future(broker.join(card(), lambda _: None)), asyncio.ensure_future(broker.wait(["x"], 9))]
    await until(lambda: between.connections)
    await broker.close()
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 1)
    assert [type(answer) for answer in answers] == [BrokerDown] * 2


async def test_closing_in_an_outage(between: Proxy):
    broker = make(between.url)
    epoch = await broker.join(card(), lambda _: None)
    between.refusing = True
    between.cut()
    stepping = asyncio.ensure_future(broker.step(epoch, [], {"q": 1}, 1))
    await until(lambda: broker._script._down_since is not None)
    await broker.close()
    with pytest.raises(BrokerDown, match="closed"):
        await stepping


async def test_a_closed_broker_says_so(redis_url: str):
    broker = redis.open(redis_url)
    await broker.close()
    for call in (lambda: broker.enqueue([job()]), lambda: broker.find(["x"]), lambda: broker.depth([])):
        with pytest.raises(BrokerDown, match="closed"):
            await call()


async def test_nothing_is_connected_before_it_is_used(tmp_path: Path):
    broker = redis.open(f"unix://{tmp_path}/nothing", namespace="shop")
    assert repr(broker) == f"<RedisBroker unix://{tmp_path}/nothing>"
    await broker.close()


# ---------------------------------------------------------------------------------------------------- durability


async def test_on_disk_when_asked_for(tmp_path: Path):
    running = await asyncio.to_thread(server.start, tmp_path)
    try:
        broker = make(running.url)
        assert await broker.enqueue([job(), job(durable="disk")]) == [Receipt.ACCEPTED] * 2
        assert await broker.enqueue([job()]) == [Receipt.ACCEPTED]
        with redis_py.Redis.from_url(running.url) as client:
            assert client.info("commandstats")["cmdstat_waitaof"]["calls"] == 1
        await broker.close()
    finally:
        await asyncio.to_thread(running.stop)


async def test_a_disk_that_nothing_is_written_to(own: server.Server):
    with pytest.raises(SettingsError, match="appendonly yes"):
        await make(own.url).enqueue([job(durable="disk")])


async def test_an_old_server_is_on_disk_where_it_always_writes(tmp_path: Path):
    if not os.access(DEBIAN_REDIS, os.X_OK):
        pytest.skip("needs Debian's redis-server, which is older than 7.2")
    running = await asyncio.to_thread(server.start, tmp_path, binary=DEBIAN_REDIS)
    try:
        broker = make(running.url)
        with pytest.raises(SettingsError, match="appendfsync always"):
            await broker.enqueue([job(durable="disk")])
        with redis_py.Redis.from_url(running.url) as client:
            client.config_set("appendfsync", "always")
        assert await broker.enqueue([job(durable="disk")]) == [Receipt.ACCEPTED]
        await broker.close()
    finally:
        await asyncio.to_thread(running.stop)


async def test_no_replica_to_be_had(own: server.Server):
    broker = make(own.url, patience=0.5)
    with pytest.raises(BrokerDown, match="no replica has it yet"):
        await broker.enqueue([one := job(durable="replica")])
    (found,) = await broker.find([one.id])
    assert found is not None, "the server itself has it"
    assert found.state is State.QUEUED
