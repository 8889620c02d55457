"""The example of a flow does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
