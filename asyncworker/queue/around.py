"""A broker around another: what it does not do itself, that one does."""

from __future__ import annotations

from typing import Any

from asyncworker.queue.admin import Admin
from asyncworker.queue.brokers.broker import Broker


class Around:
    """Passes on all that a broker is asked. Its heirs do some of it themselves; `AroundAdmin` is an `Admin` as well."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker


class AroundAdmin(Around):
    """Passes on what people do to queues, too."""


def _pass_on(kind: type[Around], contract: type) -> None:
    for name in vars(contract):
        if not name.startswith("_") and not hasattr(kind, name):
            setattr(kind, name, _passed_on(name))


def _passed_on(name: str) -> Any:
    def call(self: Around, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._broker, name)(*args, **kwargs)

    return call


_pass_on(Around, Broker)
_pass_on(AroundAdmin, Admin)
