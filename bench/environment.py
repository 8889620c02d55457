"""A virtual environment of its own for each peer: pinned, made when first asked for, kept under ``bench/.venvs``.

Peers want different versions of the same libraries, and none of them may depend on what asyncworker happens to
have installed. A stamp in each environment says what it was made from: a changed pin, or another Python, makes
it anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / "bench" / ".venvs"


OURS = "asyncworker"
"""The environment with what asyncworker itself depends on: extras and tools that lie beside it make a worker larger."""


def dependencies() -> tuple[str, ...]:
    """Return what ``pip install asyncworker`` installs besides."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return tuple(project["dependencies"])


def made(name: str, pins: Sequence[str]) -> bool:
    """Return whether the environment is there as pinned."""
    stamp = VENVS / name / "stamp"
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _wanted(pins)


def python(name: str, pins: Sequence[str]) -> str:
    """Return the interpreter of an environment, made now if need be (10 to 30 seconds); without pins the caller's,
    or that of `OURS` where somebody has made it.

    Raises:
        RuntimeError: pip could not install it; the message has the end of pip's output.
    """
    if not pins:
        if not made(OURS, pins := dependencies()):
            return sys.executable
        name = OURS
    home = VENVS / name
    interpreter = str(home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    if not made(name, pins):
        shutil.rmtree(home, ignore_errors=True)
        print(f"making {home.relative_to(ROOT)} …", file=sys.stderr)
        venv.create(home, with_pip=True, symlinks=sys.platform != "win32")
        pip = [interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", *pins]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pip could not install {name}: {done.stderr[-2_000:]}")
        (home / "stamp").write_text(_wanted(pins), encoding="utf-8")
    return interpreter


def _wanted(pins: Sequence[str]) -> str:
    return "\n".join([sys.version.split()[0], *pins])
