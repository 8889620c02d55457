from __future__ import annotations

import subprocess
import sys

import pytest

TRY = """
import logging, resource
from asyncworker.daemon.ceiling import limit_memory
logging.basicConfig()
{before}
limit_memory(200 << 20)
try:
    bytearray(300 << 20)
except MemoryError:
    print("no")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not count so")
@pytest.mark.parametrize(
    ("before", "out", "err"),
    [
        ("", "no\n", ""),
        ("resource.setrlimit(resource.RLIMIT_DATA, (100 << 20, 100 << 20))", "no\n", "limited to 100 MiB already"),
    ],
)
def test_e18_memory_beyond_the_ceiling_is_not_to_be_had(before: str, out: str, err: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRY.format(before=before)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == out
    assert err in done.stderr
