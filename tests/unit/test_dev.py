"""`dev.sh` says in one line what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

DEV = Path(__file__).parents[2] / "dev.sh"
NEEDS = ("sh", "dirname", "sed", "find", "cat", "rm", "grep", "tail")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout that has the script alone, and a PATH without Python."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in NEEDS:
        (programs / name).symlink_to(shutil.which(name) or name)
    shutil.copy(DEV, tmp_path / "dev.sh")
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def run(place: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(place / "dev.sh"), *words],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": str(place / "bin"), "HOME": str(place), **variables},
    )


def python(place: Path, script: str) -> None:
    program = place / "bin" / "python3"
    program.write_text(f'#!/bin/sh\n{script}\nexec {sys.executable} "$@"\n')
    program.chmod(0o700)


def test_it_explains_itself(place: Path) -> None:
    assert "./dev.sh test" in run(place).stdout
    wrong = run(place, "dance")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "./dev.sh check" in wrong.stderr


@pytest.mark.parametrize("script", [None, "exit 1"], ids=["none", "old"])
def test_a_python_that_is_missing_or_old(place: Path, script: str | None) -> None:
    if script:
        python(place, script)
    done = run(place, "demo")
    assert done.returncode == 2
    assert "there is no Python 3.11 or newer" in done.stderr
    named = run(place, "test", PYTHON="python3")
    assert named.returncode == 2
    assert "PYTHON=python3 is no Python 3.11 or newer" in named.stderr


def test_a_python_without_venv(place: Path) -> None:
    python(place, 'case "$*" in *ensurepip*) exit 1 ;; esac')
    done = run(place, "demo")
    assert done.returncode == 2
    assert done.stderr.endswith("apt-get install python3-venv\n")


def test_a_package_index_that_cannot_be_reached(place: Path) -> None:
    pip = 'case "$*" in *"pip install"*) echo "NewConnectionError: no"; exit 1 ;; *"venv --clear"*) exit 0 ;; esac'
    python(place, pip)
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / ".venv" / "bin" / "python").symlink_to(place / "bin" / "python3")
    done = run(place, "demo")
    assert done.returncode == 2
    assert "no network?" in done.stderr
    assert not (place / ".venv" / "installed-embedded").exists()


def test_an_environment_is_made_once_and_again_when_it_was_moved(place: Path) -> None:
    python(
        place, 'case "$*" in *"-m pip"*) echo "$*" >> "$HOME/asked"; exit 0 ;; *pytest* | *asyncworker*) exit 0 ;; esac'
    )
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / ".venv" / "bin" / "python").symlink_to(place / "bin" / "python3")
    asked = place / "asked"
    for words in (("test",), ("demo",), ("run", "--help")):
        run(place, *words)
    assert asked.read_text().count("--editable") == 1
    (place / ".venv" / "installed-dev").write_text("/elsewhere")
    run(place, "demo")
    assert asked.read_text().count("--editable") == 2
    future = (place / ".venv" / "installed-embedded").stat().st_mtime + 10
    os.utime(place / "pyproject.toml", (future, future))
    run(place, "demo")
    assert asked.read_text().count("--editable") == 3
