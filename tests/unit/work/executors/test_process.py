"""Functions in processes: deaths, cancellations, names, and the end of all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import uvloop

from asyncworker import Context, Engine, SettingsError, TaskFailed, TaskTimeout
from asyncworker.work.executors.process import ProcessExecutor
from tests.support import calls
from tests.support.brokers import until


@pytest.fixture
async def executor() -> AsyncIterator[ProcessExecutor]:
    one = ProcessExecutor(processes=2)
    yield one
    one.close()


async def noted(mark: Path) -> int:
    """Return the process that has written its number there."""

    async def look() -> str:
        return mark.read_text() if mark.exists() else ""  # noqa: ASYNC240 - a look at a small local file

    return int(await until(look))


async def gone(pid: int) -> None:
    async def look() -> bool:
        return not psutil.pid_exists(pid)

    await until(look)


async def test_a_process_is_used_again(executor: ProcessExecutor) -> None:
    where = executor.bind(calls.where)
    pids = {await where() for _ in range(5)}
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert len({await where() for _ in range(2)} | set(await asyncio.gather(*(where() for _ in range(8))))) <= 2


@pytest.mark.parametrize(("how", "told"), [("exit", "exit code 7"), ("kill", "killed by SIGKILL")])
async def test_a_process_that_dies_fails_its_call_alone(executor: ProcessExecutor, how: str, told: str) -> None:
    die, add = executor.bind(calls.drop_dead), executor.bind(calls.add)
    died, *sums = await asyncio.gather(die(how), *(add(n) for n in range(6)), return_exceptions=True)
    assert isinstance(died, ChildProcessError)
    assert told in str(died)
    assert sums == list(range(6))


async def test_a_cancelled_call_kills_its_process_and_another_takes_its_place(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    add = executor.bind(calls.add)
    hanging = [asyncio.ensure_future(executor.bind(calls.hang)(str(tmp_path / str(n)))) for n in range(2)]
    pids = [await noted(tmp_path / str(n)) for n in range(2)]
    waiting = asyncio.ensure_future(add(1))
    hanging[0].cancel()
    assert await waiting == 1
    await gone(pids[0])
    assert not hanging[1].done()
    executor.close()
    await gone(pids[1])
    with pytest.raises(ChildProcessError):
        await hanging[1]
    with suppress(asyncio.CancelledError):
        await hanging[0]


async def test_what_cannot_travel_fails_and_the_process_stays(executor: ProcessExecutor) -> None:
    echo = executor.bind(calls.echo)
    pid = await executor.bind(calls.where)()
    with pytest.raises(TypeError):
        await echo(object())
    with pytest.raises(TypeError):
        await executor.bind(calls.give_an_object)()
    with pytest.raises(SystemExit):
        await executor.bind(calls.exit_python)()
    assert await executor.bind(calls.where)() == pid


async def test_large_bytes_and_buffers_go_through_shared_memory(executor: ProcessExecutor) -> None:
    big = os.urandom(3_000_001)
    assert await executor.bind(calls.backwards)(big) == big[::-1]
    numbers = array("d", range(100_000))
    seen = await executor.bind(calls.look_at)(view=numbers)
    assert seen == {"format": "d", "shape": [100_000], "sum": sum(numbers.tobytes()), "held": "mmap"}
    back = await executor.bind(calls.table_of)(50_000)
    assert (back.format, back.tolist()) == ("d", list(range(50_000)))
    assert await executor.bind(calls.echo)(bytearray(big)) == big
    assert await executor.bind(calls.where)() in {process.child.pid for process in executor._all}


def test_buffers_go_through_shared_memory_on_uvloop_too() -> None:
    big = os.urandom(3_000_001)

    async def there_and_back() -> list[bytes]:
        one = ProcessExecutor(processes=2)
        try:
            return await asyncio.gather(*(one.bind(calls.backwards)(big) for _ in range(6)))
        finally:
            one.close()

    assert uvloop.run(there_and_back()) == [big[::-1]] * 6


async def test_a_jobs_large_arguments_reach_its_process_uncopied() -> None:
    big = os.urandom(500_000)
    async with calls.engine:
        job = await calls.weigh.enqueue(big, offset=big)
        seen = await job.result(timeout=20)
    assert seen == {"format": "B", "shape": [len(big)], "sum": sum(big), "held": "mmap", "offset": len(big)}


async def test_s45_nothing_is_left_of_buffers_whose_process_was_killed(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    await executor.bind(calls.where)()
    descriptors = psutil.Process().num_fds()
    with pytest.raises(ChildProcessError):
        await executor.bind(calls.die_with)(os.urandom(1_000_000))
    hanging = asyncio.ensure_future(executor.bind(calls.hang)(str(tmp_path / "mark"), os.urandom(1_000_000)))
    await noted(tmp_path / "mark")
    hanging.cancel()
    with suppress(asyncio.CancelledError):
        await hanging
    assert psutil.Process().num_fds() < descriptors


async def test_arguments_arrive_as_their_types(executor: ProcessExecutor) -> None:
    assert await executor.bind(calls.move)(calls.Point(1, 2), by=3) == {"x": 4, "y": 2}


def test_functions_that_another_process_cannot_find_are_refused() -> None:
    def local() -> None: ...

    engine = Engine()
    for function in (local, lambda: None):
        with pytest.raises(SettingsError, match="cannot run in a process"):
            engine.task(name="x", executor="process")(function)

    def with_context(ctx: Context) -> None: ...

    with_context.__qualname__ = "with_context"
    with pytest.raises(SettingsError, match="Context"):
        engine.task(executor="process")(with_context)


def test_on_the_queue_for_processors_plain_functions_run_in_processes() -> None:
    engine = Engine(routes={"ad?": "cpu_intensive"})
    assert engine.task()(calls.add).definition.options.executor == "process"
    assert engine.task(queue="cpu_intensive")(calls.echo).definition.options.executor == "process"
    assert engine.task(queue="cpu_intensive", executor="thread")(calls.fail).definition.options.executor == "thread"
    assert engine.task(queue="default")(calls.where).definition.options.executor == ""

    async def holds_the_loop() -> None: ...

    with pytest.raises(SettingsError, match="not in a process; give it another queue, or executor='inline'"):
        engine.task(queue="cpu_intensive")(holds_the_loop)
    assert engine.task(queue="cpu_intensive", executor="inline")(holds_the_loop)


async def test_jobs_run_in_processes_time_out_and_die_alone(tmp_path: Path) -> None:
    async with calls.engine:
        jobs = await calls.power.enqueue_many([(n,) for n in range(4)])
        dying, late = await calls.die.enqueue(), await calls.forever.enqueue(str(tmp_path / "mark"))
        assert [await job.result(timeout=20) for job in jobs] == [0, 1, 4, 9]
        with pytest.raises(TaskFailed, match="killed by SIGKILL") as failed:
            await dying.result(timeout=20)
        assert (failed.value.reason, failed.value.error_type) == ("error", "ChildProcessError")
        with pytest.raises(TaskTimeout):
            await late.result(timeout=20)


PARENT = """
import asyncio, sys
from asyncworker.work.executors.process import ProcessExecutor
from tests.support import calls
asyncio.run(ProcessExecutor().bind(calls.hang)(sys.argv[1]))
"""


async def test_processes_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    root = Path(__file__).parents[4]
    with subprocess.Popen([sys.executable, "-c", PARENT, str(mark)], cwd=root) as parent:  # noqa: ASYNC220 - it starts at once
        pid = await noted(mark)
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    await gone(pid)
