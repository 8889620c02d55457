from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncworker
from asyncworker import AsyncWorkerOptimizer
from asyncworker.errors import BadParameters
from bench.control import bench_unknown_knee, virtual_loop
from bench.control.bench_convergence import end_to_end
from bench.control.simulation import Scalable, Works


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def test_results_come_in_the_items_order() -> None:
    async def slow_first(number: int) -> int:
        await asyncio.sleep(0.002 if number == 0 else 0)
        return number

    optimizer = AsyncWorkerOptimizer()
    assert await optimizer.optimize_batch_processing(range(300), slow_first) == list(range(300))
    assert await optimizer.optimize_batch_processing(range(30), slow_first, max_concurrent=5) == list(range(30))
    assert await optimizer.optimize_batch_processing([], slow_first) == []


async def test_s41_the_first_designs_example_runs_as_it_is_written() -> None:
    data_list, process_item = list(range(40)), double
    optimizer = AsyncWorkerOptimizer()
    results = await optimizer.optimize_batch_processing(
        items=data_list,
        task_func=process_item,
        batch_size=10,
        max_concurrent=5
    )  # fmt: skip
    assert results == [2 * number for number in data_list]


@pytest.mark.parametrize(
    ("kind", "verbs"),
    [
        ("AsyncWorkerOptimizer", "optimize_batch_processing setup_pipeline manage_resource_pool distribute_tasks calculate_balance_score"),
        ("Pipeline", "process get_metrics"),
        ("ResourcePool", "get_active_workers simulate_load get_utilization"),
        ("PerformanceProfiler", "start_profiling profile_async get_profile_report analyze_bottlenecks"),
        ("AsyncBatchProcessor", "set_handler add_item _process_batch"),
        ("ConnectionPoolOptimizer", "optimize_pool_size monitor_health detect_leaks"),
        ("MemoryOptimizer", "profile_memory detect_leaks optimize_data_structures"),
    ],
)  # fmt: skip
def test_the_first_designs_names_are_all_there(kind: str, verbs: str) -> None:
    assert [verb for verb in verbs.split() if not callable(getattr(getattr(asyncworker, kind), verb, None))] == []


async def test_a_batch_size_bounds_what_is_under_way() -> None:
    inside = most = 0

    async def watched(_: int) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1

    for sizes, bound in (((3, "auto"), 3), ((3, 9), 3), ((9, 3), 3)):
        most = 0
        await AsyncWorkerOptimizer().optimize_batch_processing(range(50), watched, *sizes)  # type: ignore[arg-type]
        assert most == bound


async def test_the_other_parts_are_at_hand() -> None:
    optimizer = AsyncWorkerOptimizer()
    assert await optimizer.setup_pipeline(double, double).process(range(5)) == [0, 4, 8, 12, 16]
    async with optimizer.manage_resource_pool(1, 3) as pool:
        assert await pool.run(double, 4) == 8
    plan = optimizer.distribute_tasks(range(10), ["a", "b"])
    assert {worker: len(tasks) for worker, tasks in plan.items()} == {"a": 5, "b": 5}
    assert optimizer.calculate_balance_score(plan).jain == 1.0


async def test_an_error_ends_all_of_it() -> None:
    async def picky(number: int) -> int:
        await asyncio.sleep(0)
        if number == 7:
            raise KeyError(number)
        return number

    with pytest.raises(KeyError):
        await AsyncWorkerOptimizer().optimize_batch_processing(range(1000), picky)
    found = [out.error async for out in AsyncWorkerOptimizer().map(picky, range(20), on_error="collect")]
    assert sum(error is not None for error in found) == 1


async def test_s41_a_million_items_never_are_a_million_tasks() -> None:
    most = 0

    def items() -> Iterator[int]:
        nonlocal most
        for number in range(20_000):
            if number % 500 == 0:
                most = max(most, len(asyncio.all_tasks()))
            yield number

    before = len(asyncio.all_tasks())
    total = 0
    async for _ in AsyncWorkerOptimizer().map(double, items()):
        total += 1
    assert total == 20_000
    assert most - before <= 200


@pytest.mark.parametrize("concurrency", [0, "many", True, 1.5])
async def test_a_concurrency_that_is_none_is_refused(concurrency: object) -> None:
    with pytest.raises(BadParameters):
        AsyncWorkerOptimizer().map(double, [1], concurrency=concurrency)  # type: ignore[arg-type]


@pytest.mark.bars
def test_auto_does_nearly_the_most_work_there_is_to_do(seed: int) -> None:
    shares = end_to_end(seed, draws=2)
    assert sum(shares) / 2 >= 0.88, f"seed {seed}"


@pytest.mark.bars
def test_auto_does_nearly_as_much_as_the_best_number(seed: int) -> None:
    services = bench_unknown_knee.drawn(random.Random(seed), 3)
    results = virtual_loop.run(bench_unknown_knee.judge_all(services, 10.0, 3))
    shares = [of["share"] for of in results]
    assert sum(shares) / 3 >= 0.75, f"seed {seed}: {shares}"
    assert sorted(shares)[1] >= 0.75, f"seed {seed}: {shares}"  # one in a hundred is found late


def test_what_it_learned_is_used_again_also_elsewhere() -> None:
    async def main(optimizer: AsyncWorkerOptimizer, count: int) -> int:
        backend = virtual_loop.Backend(Scalable(50.0, 0.03, 0.0005), Works(random.Random(1)))

        async def call(_: int) -> None:
            await backend.call()

        await optimizer.optimize_batch_processing(range(count), call)
        return backend.most

    first = AsyncWorkerOptimizer()
    virtual_loop.run(main(first, 4000))
    assert first.decisions
    second = AsyncWorkerOptimizer(learned=json.loads(json.dumps(first.learned)))
    assert virtual_loop.run(main(second, 100)) > 15
    assert virtual_loop.run(main(AsyncWorkerOptimizer(), 40)) <= 8
    odd = AsyncWorkerOptimizer(learned={next(iter(first.learned)): {"nonsense": 1}})
    assert virtual_loop.run(main(odd, 40)) <= 8


async def test_what_it_learned_outlives_the_process_in_a_file(tmp_path: Path) -> None:
    async def slow(number: int) -> int:
        await asyncio.sleep(0.0005)
        return number

    place = str(tmp_path / "learned.db")
    async with AsyncWorkerOptimizer(keep=place) as first:
        await first.optimize_batch_processing(range(400), slow)
        assert first.decisions
        learned = json.loads(json.dumps(first.learned))
    async with AsyncWorkerOptimizer(keep=place) as second:
        assert second.learned == learned
        assert [one.because for one in second.decisions]
        assert second.decisions.total == 0
    async with AsyncWorkerOptimizer() as third:
        assert third.learned == {}
