"""What does the mapper cost an item, beside reading it and beside the function's own work?

Null hypothesis: the hot loop costs as much as reading a line of JSON. Run: ``python -m bench.bench_mapper [items]``.
Prints items a second of processor time, best of three: reading alone, a mapper that does nothing, and validation.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncworker.mapreduce.catalogue import find_function
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.folding import Folding

RULES = {
    "validation_rules": {
        "required_fields": ["id", "name"],
        "type_validations": {"id": "int"},
        "range_validations": {"age": {"min": 0, "max": 120}},
    }
}


class Nothing:
    """Maps to 1 and adds up."""

    def initial(self) -> int:
        return 0

    def map(self, item: Any) -> int:
        return 1

    def fold(self, acc: int, value: int) -> int:
        return acc + value


async def rate(path: Path, work: Callable[[], Any] | None) -> float:
    source = open_source(path)
    partitions = [partition async for partition in source.partitions(10_000)]
    items, began = 0, time.process_time()
    for partition in partitions:
        folding = Folding(work(), None, 1) if work else None
        async for pairs in source.read(partition):
            items += len(pairs)
            if folding:
                await folding.take(pairs)
    spent = time.process_time() - began
    await source.close()
    return items / spent


def main(items: int) -> None:
    validation = find_function("data_validation")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.jsonl"
        with path.open("w") as file:
            file.writelines(f'{{"id":{number},"name":"n{number}","age":{number % 100}}}\n' for number in range(items))
        for what, work in (
            ("read", None),
            ("read + map nothing", Nothing),
            ("read + data_validation", lambda: validation.prepare(RULES)),
        ):
            best = max(asyncio.run(rate(path, work)) for _ in range(3))
            print(f"{what:24} {best:12,.0f} items/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
