"""The channel between processes: real ones, that die, hang and come back."""

from __future__ import annotations

import array
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest

from asyncworker.errors import BadParameters, ChannelClosed, DecodeError, UnknownName
from asyncworker.share import link
from asyncworker.share.board import SLOTS, Board, Gauges, Watch
from asyncworker.share.channel import HighPerformanceIPC
from asyncworker.share.link import SOCKET
from asyncworker.share.queue import DEATHS, MessageType
from asyncworker.share.segment import WORTH
from tests.support.brokers import until
from tests.support.clock import FrozenClock

ROOT = Path(__file__).parents[3]
BIG = os.urandom(4 * WORTH)
DATA, SHUTDOWN = MessageType.DATA, MessageType.SHUTDOWN


def there(place: str) -> bool:
    return Path(place).exists()


class Owner(HighPerformanceIPC):
    """The owner of a channel, who notes whom it lost."""

    def __init__(self, **options: object) -> None:
        self.lost: list[str] = []
        super().__init__("main", on_lost=self.lost.append, **options)


@pytest.fixture
async def main() -> AsyncIterator[Owner]:
    async with Owner() as owner:
        owner.create_message_queue("tasks", 50)
        owner.create_message_queue("results", 50)
        place = owner.place
        yield owner
    assert not there(place)


@pytest.fixture
async def other(main: Owner) -> AsyncIterator[HighPerformanceIPC]:
    async with HighPerformanceIPC("other", place=main.place) as one:
        yield one


WORKER = """
import asyncio, os, signal, sys, uvloop
from asyncworker import HighPerformanceIPC, MessageType

async def work():
    async with HighPerformanceIPC(sys.argv[2], place=sys.argv[1], heartbeat_interval=0.05) as ipc:
        ipc.connect_shared_memory("data_buffer", 1000)
        print("ready", flush=True)
        while True:
            message = await ipc.receive_message("tasks", timeout=30)
            if message.msg_type is MessageType.SHUTDOWN:
                return
            task = message.data
            if task["die"] == sys.argv[2] or task["die"] == "all":
                os.kill(os.getpid(), signal.SIGKILL)
            result = {"id": task["id"], "read": ipc.read_shared_data("data_buffer").decode(), "by": ipc.process_id}
            await ipc.send_message("results", MessageType.DATA, result)
            await ipc.done("tasks")

uvloop.run(work())  # as workers do
"""


def worker(main: Owner, name: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return child(WORKER, main.place, name)


@contextmanager
def child(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as one:
        try:
            yield one
        finally:
            one.kill()


async def results(main: Owner, count: int) -> list[dict[str, object]]:
    async with asyncio.timeout(30):
        return [(await main.receive_message("results")).data for _ in range(count)]


async def test_s43_s46_s49_a_coordinator_its_workers_and_their_deaths(main: Owner) -> None:
    """The seed's example: tasks out, results back, shared memory, and an end for however many there are."""
    main.create_shared_memory("data_buffer", 1000)
    main.write_shared_data("data_buffer", b"shared by all")
    with worker(main, "one") as one, worker(main, "two") as two:
        for process in (one, two):
            assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        done: list[dict[str, object]] = []
        while not main.lost or len(done) < 100:
            await send_all(main, [{"id": len(done) + n, "die": "one"} for n in range(20)])
            done += await results(main, 20)
        assert sorted(result["id"] for result in done) == list(range(len(done))), "a death loses nothing"
        assert {result["read"] for result in done} == {"shared by all"}
        assert main.lost == ["one"]
        assert main.get_stats()["redelivered"] == 1
        assert await asyncio.to_thread(one.wait, 10) == -signal.SIGKILL
        with worker(main, "one") as again:  # who joins late is told to go as well
            assert await asyncio.to_thread(again.stdout.readline) == "ready\n"
            await main.send_message("tasks", SHUTDOWN)
            assert [await asyncio.to_thread(process.wait, 20) for process in (two, again)] == [0, 0]
    assert main.lost == ["one"], "who says good-bye is not lost"


async def send_all(main: Owner, tasks: list[dict[str, object]]) -> None:
    for task in tasks:
        await main.send_message("tasks", DATA, task)


async def test_s46_a_message_that_kills_its_readers_is_given_up(main: Owner) -> None:
    main.create_shared_memory("data_buffer", 1000)
    await main.send_message("tasks", DATA, {"id": 1, "die": "all"})
    for number in range(DEATHS):
        with worker(main, str(number)) as one:
            assert await asyncio.to_thread(one.wait, 30) == -signal.SIGKILL
        await until_lost(main, number + 1)
    stats = main.get_stats()
    assert (stats["given_up"], stats["redelivered"], stats["errors"], stats["waiting"]) == (1, DEATHS - 1, DEATHS, 0)


def segments(main: Owner) -> list[Path]:
    return list(Path(main.place).glob("segment-*"))


async def until_lost(main: Owner, count: int) -> None:
    async def lost() -> bool:
        return len(main.lost) >= count

    await until(lost)


async def test_data_of_all_sorts_arrive(main: Owner, other: HighPerformanceIPC) -> None:
    numbers = array.array("d", range(WORTH))
    for sender, reader in ((main, other), (other, main), (other, other)):
        for data in (None, 0, "text", [1, {"a": b"b"}], b"", BIG, bytearray(BIG), memoryview(numbers)):
            await sender.send_message("tasks", DATA, data, timeout=20)
            message = await reader.receive_message("tasks", timeout=20)
            assert (message.msg_type, message.sender_id) == (DATA, sender.process_id)
            assert type(message.data) is type(data)
            assert message.data == data
    assert segments(main), "the last is on loan"
    await main.done("tasks")
    await other.done("tasks")
    assert not segments(main)
    assert other.get_stats()["bytes_transferred"] > 2 * (2 * len(BIG) + 8 * WORTH)


async def test_s50_what_is_no_data_is_refused_where_it_is_sent(main: Owner, other: HighPerformanceIPC) -> None:
    for one in (other,):
        with pytest.raises(TypeError):
            await one.send_message("tasks", DATA, object())
        with pytest.raises(BadParameters, match="as buffers"):
            await one.send_message("tasks", DATA, "x" * (link.MOST + 1))
    await other.send_message("tasks", DATA, {"n": "1"})
    with pytest.raises(DecodeError, match="is no Numbered"):
        await main.receive_message("tasks", 20, kind=Numbered)
    await other.send_message("tasks", DATA, {"n": 1})
    assert (await main.receive_message("tasks", 20, kind=Numbered)).data == Numbered(1)
    assert (main.get_stats()["errors"], other.get_stats()["errors"]) == (1, 2)


class Numbered(msgspec.Struct):
    n: int


async def test_s48_a_full_queue_makes_who_sends_wait(main: Owner, other: HighPerformanceIPC) -> None:
    main.create_message_queue("narrow", 2)
    for sender in (main, other):
        await sender.send_message("narrow", DATA, 1)
    for sender in (main, other):
        with pytest.raises(TimeoutError):
            await sender.send_message("narrow", DATA, BIG, timeout=0.01)
    waiting = asyncio.ensure_future(other.send_message("narrow", DATA, BIG))
    assert (await main.receive_message("narrow", 20)).data == 1
    await waiting
    assert [(await other.receive_message("narrow", 20)).data for _ in range(2)] == [1, BIG]
    await other.done("narrow")
    assert not segments(main), "what was not sent is gone"
    with pytest.raises(BadParameters):
        main.create_message_queue("endless", 0)


async def test_who_gives_up_waiting_takes_nothing_away(main: Owner, other: HighPerformanceIPC) -> None:
    for one in (main, other):
        assert await one.receive_message("tasks", timeout=0.01) is None
    giving_up = [asyncio.ensure_future(one.receive_message("tasks")) for one in (other, main)]
    await asyncio.sleep(0)
    await main.send_message("tasks", DATA, 1)
    for waiting in giving_up:
        waiting.cancel()
    await asyncio.wait(giving_up)
    assert (await main.receive_message("tasks", timeout=20)).data == 1


async def test_s49_a_closed_queue_ends_for_all_when_it_is_empty(main: Owner, other: HighPerformanceIPC) -> None:
    await main.send_message("tasks", DATA, 1)
    await other.send_message("tasks", SHUTDOWN)
    with pytest.raises(ChannelClosed):
        await main.send_message("tasks", DATA, 2)
    with pytest.raises(ChannelClosed):
        await other.send_message("tasks", DATA, BIG)
    assert (await other.receive_message("tasks", 20)).data == 1
    early = asyncio.ensure_future(main.receive_message("tasks"))
    await asyncio.sleep(0)
    assert not early.done(), "the last one may yet come back"
    assert (await other.receive_message("tasks", 20)).msg_type is SHUTDOWN
    assert (await early).msg_type is SHUTDOWN
    assert (await main.receive_message("tasks")).msg_type is SHUTDOWN


async def test_names_are_known_or_refused(main: Owner, other: HighPerformanceIPC) -> None:
    for one in (main, other):
        with pytest.raises(UnknownName, match="message queue"):
            await one.send_message("nothing", DATA, BIG)
        with pytest.raises(UnknownName, match="message queue"):
            await one.receive_message("nothing")
        with pytest.raises(BadParameters, match="no shared memory"):
            one.connect_shared_memory("nothing", 1)
        with pytest.raises(BadParameters, match="not open"):
            one.read_shared_data("nothing")
    with pytest.raises(BadParameters, match="already"):
        main.create_message_queue("tasks")
    with pytest.raises(ChannelClosed):
        other.create_message_queue("mine")
    main.create_shared_memory("memory", 10)
    with pytest.raises(BadParameters, match="already"):
        other.create_shared_memory("memory", 10)
    with pytest.raises(BadParameters, match="there is a process 'other'"):
        await HighPerformanceIPC("other", place=main.place).start()
    assert not segments(main)


async def test_the_end_of_the_owner_is_told(tmp_path: Path) -> None:
    lost: list[str] = []
    owner = Owner()
    await owner.start()
    owner.create_message_queue("tasks")
    async with HighPerformanceIPC("other", place=owner.place, on_lost=lost.append) as other:
        waiting = asyncio.ensure_future(other.receive_message("tasks"))
        await asyncio.sleep(0)
        await owner.cleanup()
        with pytest.raises(ChannelClosed):
            await waiting
        assert lost == [""]
        with pytest.raises(ChannelClosed):
            await other.send_message("tasks", DATA)
    assert owner.lost == []
    with pytest.raises(ChannelClosed):
        await HighPerformanceIPC("late", place=tmp_path).start()
    for call in (owner.send_heartbeat, owner.check_alive_processes, lambda: owner.place):
        with pytest.raises(ChannelClosed):
            call()
    await owner.cleanup()


# --- liveness ---------------------------------------------------------------------------------------------


async def test_s47_silence_is_seen_by_the_watchers_own_clock_and_by_no_other(frozen_clock: FrozenClock) -> None:
    skewed = FrozenClock()
    skewed.advance(-3600)
    async with Owner(clock=frozen_clock, heartbeat_interval=1000) as main:
        main.create_message_queue("tasks", 1)
        async with HighPerformanceIPC("other", place=main.place, clock=skewed, heartbeat_interval=1000) as other:
            assert main.check_alive_processes(10) == ["main", "other"]
            await main.send_message("tasks", DATA, "the data's way is full")
            for _ in range(3):
                frozen_clock.advance(9)
                other.send_heartbeat()
                await other.send_message("tasks", MessageType.HEARTBEAT)
                assert "other" in main.check_alive_processes(10)
            frozen_clock.advance(10.5)
            assert main.check_alive_processes(10) == []
            main.send_heartbeat()
            assert main.check_alive_processes(10) == ["main"]


async def test_gauges_are_there_at_once_and_when_their_process_has_died(main: Owner) -> None:
    told: list[Gauges] = []
    main._on_lost = main._hub._on_lost = lambda name: told.append(main.read_gauges(name))
    gauges = Gauges(stage=1, running=3, ended=10, idle_us=5, up_us=2**40)
    other = HighPerformanceIPC("other", place=main.place, measure=lambda: gauges)
    await other.start()
    assert main.read_gauges("other") == msgspec.structs.replace(gauges, beats=1)
    other._link.transport.abort()  # as a death looks from here

    async def seen() -> bool:
        return bool(told)

    await until(seen)
    assert told[0].ended == 10
    assert main.read_gauges("other") == Gauges()
    await other.cleanup()


def test_the_board_is_bounded(tmp_path: Path, frozen_clock: FrozenClock) -> None:
    board = Board(tmp_path, make=True)
    watch = Watch(board, frozen_clock)
    assert len({watch.admit(str(number)) for number in range(SLOTS)}) == SLOTS
    with pytest.raises(Exception, match="already"):
        watch.admit("one more")
    watch.dismiss("7")
    watch.dismiss("7")
    assert watch.admit("one more") == watch.admit("one more")
    again = Board(tmp_path, make=False)
    board.write(SLOTS - 1, Gauges(2**63))
    assert again.read(SLOTS - 1) == Gauges(2**63)
    again.close()
    board.close()


# --- what comes from elsewhere ----------------------------------------------------------------------------


def frame(value: object) -> bytes:
    data = msgspec.msgpack.encode(value)
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\3abc",
        frame({"a": 1}),
        frame([9, 9, 9]),
        frame([1, 1, "tasks", [["data", "x", 0.0]]]),  # no hello before
        frame([0, "x"]) + frame([1, 1, "tasks", None, [["data", "x", 0.0], [], "../../etc/passwd"]]),
        frame([0, "x"]) + frame([1, 1, "tasks", None, [["nonsense", "x", 0.0]]]),
        frame([0, "x"]) + frame([2, 1, [[[[[[]]]]]]]),
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94",
    ],
)
async def test_s50_bytes_that_are_no_message_end_their_connection_alone(
    main: Owner, other: HighPerformanceIPC, sent: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(f"{main.place}/{SOCKET}")
    writer.write(sent)
    async with asyncio.timeout(20):
        await reader.read()
    writer.close()
    assert main.get_stats()["errors"] == 1
    await other.send_message("tasks", DATA, 1)
    assert (await main.receive_message("tasks", 20)).data == 1


def test_s45_the_socket_is_in_a_private_folder(main: Owner) -> None:
    assert Path(main.place).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "make", [lambda: HighPerformanceIPC(""), lambda: HighPerformanceIPC("x", heartbeat_interval=0)]
)
def test_what_cannot_work_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(BadParameters):
        make()


PARENT = """
import asyncio, sys, uvloop
from asyncworker.share.channel import HighPerformanceIPC

async def own():
    async with HighPerformanceIPC("main") as ipc:
        ipc.create_message_queue("tasks")
        print(ipc.place, flush=True)
        await asyncio.Event().wait()

uvloop.run(own())
"""


async def test_s45_nothing_is_left_of_an_owner_that_was_killed() -> None:
    with child(PARENT) as owner:
        place = (await asyncio.to_thread(owner.stdout.readline)).strip()
        lost: list[str] = []
        other = HighPerformanceIPC("other", place=place, on_lost=lost.append)
        await other.start()
        await other.send_message("tasks", DATA, BIG)
        owner.kill()

        async def told() -> bool:
            return bool(lost)

        await until(told)
        await other.cleanup()
    assert there(place)
    async with HighPerformanceIPC("next"):
        assert not there(place)
