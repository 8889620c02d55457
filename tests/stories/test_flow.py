"""The example of a flow does what it says, and is typed as users' code is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_a_flow() -> None:
    said = subprocess.run(
        [sys.executable, "examples/flow.py"],
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
    )
    assert said.stdout.startswith(b"tidied up: bought at "), said.stderr


WRONG = """
from asyncworker import Engine, chain, group
engine = Engine()
@engine.task()
async def number(text: str) -> int: return int(text)
@engine.task()
async def total(numbers: list[int], by: int = 1) -> float: return sum(numbers) / by
async def main() -> None:
    numbers = group(number.bind(text) for text in "123")
    right: float = await (await numbers.then(total, by=2).enqueue()).result()
    right = await (await chain(numbers, total).enqueue()).result()
    numbers.then(total, by="2")  # wrong
    number.bind("1").then(total)  # wrong
    chain(number.bind("1"), number)  # wrong
    number.bind(1)  # wrong
    wrong: str = await (await (await number.enqueue("1")).then(total)).result()  # wrong
"""


@pytest.mark.long  # where mypy has no cache it reads all of the package
def test_flows_are_typed(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), str(file)]
    mypy.append("examples/flow.py")
    said = subprocess.run(mypy, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    complained = {int(line.split(":")[1]) for line in said.stdout.splitlines() if ": error:" in line}
    assert complained == {n for n, line in enumerate(WRONG.splitlines(), 1) if "# wrong" in line}, said.stdout
