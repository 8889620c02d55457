"""Finder: a function by the module and name under which it was registered, in another process than that."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from asyncworker.work.signature import Signature


@cache
def find(module: str, name: str) -> tuple[Callable[..., Any], Signature]:
    """Return a function by its module and qualified name, where there may stand a task made of it."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    function = found if inspect.isroutine(found) else getattr(found, "__wrapped__", found)
    return function, Signature(function)
