"""Processors and memory, of the machine or of a container with less of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from asyncworker.tune.sensors.host import HostSensor, rss
from tests.support.clock import FrozenClock

MIB = 2**20


def files(folder: Path, **texts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    root = tmp_path / "cgroup"
    files(root, cpu__stat="usage_usec 0")
    (tmp_path / "own").write_text("0::/shop/web\n")
    files(root / "shop", cpu__max="50000 100000", memory__max=str(100 * MIB), memory__current=str(60 * MIB))
    files(root / "shop", memory__stat=f"anon 5\ninactive_file {20 * MIB}", cpu__stat="usage_usec 1000000\nuser_usec 1")
    files(root / "shop" / "web", cpu__max="max 100000", memory__max="max", memory__current=str(MIB), memory__stat="")
    files(root / "shop" / "web", cpu__stat="usage_usec 0")
    return root


def test_a_containers_limits_go_before_the_machines(groups: Path, tmp_path: Path, frozen_clock: FrozenClock) -> None:
    sensor = HostSensor(frozen_clock, groups, tmp_path / "own")
    frozen_clock.advance(10.0)
    files(groups / "shop", cpu__stat="usage_usec 5000000\nuser_usec 1")
    seen = sensor.look()
    assert seen.processors == 0.5
    assert seen.cpu_ratio >= 0.8
    assert (seen.memory_bytes, seen.memory_used_bytes) == (100 * MIB, 40 * MIB)
    assert seen.memory_ratio == 0.4
    frozen_clock.advance(10.0)
    files(groups / "shop", cpu__stat="usage_usec 11000000")
    assert sensor.look().cpu_ratio == 1.0


def test_the_first_version_of_control_groups(tmp_path: Path, frozen_clock: FrozenClock) -> None:
    root = tmp_path / "cgroup"
    (tmp_path / "own").write_text("12:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/\nnonsense\n")
    files(root / "cpu" / "job", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    files(root / "cpu" / "job", cpuacct__usage="0")
    files(root / "memory" / "job", memory__limit_in_bytes=str(10 * MIB), memory__usage_in_bytes=str(8 * MIB))
    files(root / "memory" / "job", memory__stat=f"total_inactive_file {MIB}")
    sensor = HostSensor(frozen_clock, root, tmp_path / "own")
    frozen_clock.advance(10.0)
    files(root / "cpu" / "job", cpuacct__usage="11000000000")
    seen = sensor.look()
    assert (seen.processors, seen.cpu_ratio) == (1.0, 1.0)
    assert (seen.memory_bytes, seen.memory_used_bytes) == (10 * MIB, 7 * MIB)


@pytest.mark.parametrize("broken", ["", "x y", "1", "100 0"])
def test_files_that_cannot_be_read_say_nothing(groups: Path, tmp_path: Path, broken: str) -> None:
    for folder in (groups / "shop", groups / "shop" / "web"):
        files(folder, cpu__max=broken, memory__max=broken or "?", cpu__stat=broken, memory__stat=broken)
    seen = HostSensor(groups=groups, own=tmp_path / "own").look()
    assert seen.processors == len(os.sched_getaffinity(0))
    assert seen.memory_bytes == psutil.virtual_memory().total or broken == "1"


def test_without_control_groups_it_is_the_machine(tmp_path: Path) -> None:
    sensor = HostSensor(groups=tmp_path, own=tmp_path / "none")
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    seen = sensor.look()
    assert seen.processors == len(os.sched_getaffinity(0))
    assert 0 < seen.cpu_ratio <= 1
    assert seen.memory_bytes == psutil.virtual_memory().total
    assert 0 < seen.memory_ratio < 1
    assert {reading.name for reading in sensor.read()} >= {"host_cpu_ratio", "host_memory_bytes"}
    sensor.close()


def test_memory_of_a_process() -> None:
    assert rss(os.getpid()) > MIB
    assert rss(2**22 + 1) == 0
