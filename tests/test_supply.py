"""What is installed with us: few packages, none of a version with a known hole."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
PATCHED = {
    "aiohttp": ("3.14.5", "denial of service and request smuggling in 3.14.1, .3 and .4"),
    "jinja2": ("3.1.6", "CVE-2025-27516: a way out of the sandbox"),
    "redis": ("4.5.4", "CVE-2023-28859: one caller is given another's answer"),
    "simpleeval": ("1.0.5", "CVE-2026-32640: modules that are passed lead to all others"),
}
"""From which version on what is known is mended; what it was."""
CORE = {
    "aiohttp", "asyncpg", "click", "cronsim", "jinja2", "msgspec", "prometheus-client", "psutil", "pyre2", "redis", "rich",
    "simpleeval", "uvloop",
}  # fmt: skip


def weak(lines: list[str]) -> list[str]:
    """Return the requirements that let in a version with a known hole, or any at all."""
    found = []
    for requirement in map(Requirement, lines):
        lows = [Version(one.version) for one in requirement.specifier if one.operator in {">=", "==", "~="}]
        least = Version(PATCHED.get(requirement.name, ("0", ""))[0])
        if not lows or max(lows) < least:
            found.append(str(requirement))
    return found


def all_of(extra: str) -> list[str]:
    """Return what an extra asks for, but for other extras of ours."""
    return [line for line in PROJECT["optional-dependencies"][extra] if not line.startswith("asyncworker[")]


def test_e21_no_requirement_lets_in_a_version_with_a_known_hole() -> None:
    assert not weak(PROJECT["dependencies"])
    assert not [line for extra in PROJECT["optional-dependencies"] for line in weak(all_of(extra))]


@pytest.mark.parametrize(
    "bad", ["aiohttp>=3.9", "redis[hiredis]>=4.5.3", "simpleeval", "jinja2<4", "simpleeval==1.0.4"]
)
def test_e21_a_known_bad_pin_is_seen(bad: str) -> None:
    assert weak([bad])


def test_e21_what_everybody_installs_is_what_was_decided() -> None:
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == CORE


def test_e21_pins_of_a_newer_kind_hold() -> None:
    """A cap stands where a next major version is known to break us, and nowhere else."""
    capped = {
        Requirement(line).name for line in PROJECT["dependencies"] if re.search(r"[<=]=?\s*\d", line.replace(">=", ""))
    }
    assert capped == {"redis"}
