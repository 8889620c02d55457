"""What `Task.enqueue` returns: a coroutine to who awaits it, a future to who gathers it.

A coroutine needs a task for each call that is gathered, which costs more than all else about it. A future needs none;
as it has a coroutine's methods, too, whatever takes a coroutine (``asyncio.create_task``, a task group) takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from asyncworker.errors import AsyncWorkerError
from asyncworker.job import JobHandle
from asyncworker.queue.brokers.broker import Answer, Broker
from asyncworker.queue.entrance import reenter
from asyncworker.queue.job import Job, Receipt

R = TypeVar("R")


class Enqueued(asyncio.Future[JobHandle[R]], Coroutine[Any, Any, JobHandle[R]]):
    """A job on its way into its queue, from the moment it is made; the result is its handle.

    A `lane.Waiter`. Who cancels it gives up: a job that has not left yet is not sent.
    """

    __slots__ = ("_broker", "_job", "_steps", "_when_full")

    def __init__(self, broker: Broker, job: Job, when_full: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._broker = broker
        self._job = job
        self._when_full = when_full
        self._steps: Generator[Any, None, JobHandle[R]] | None = None

    def answered(self, answers: list[Answer]) -> None:
        """Take the broker's answer."""
        if answers[0] is Receipt.ACCEPTED:
            self.set_result(JobHandle(self._broker, self._job.id, self._job.queue))
        else:
            task = self.get_loop().create_task(self._go_on(answers[0]), name="asyncworker enqueue")
            self.add_done_callback(lambda _: task.cancel())

    def failed(self, error: Exception) -> None:
        """Take the error of the call that it went with."""
        self.set_exception(error)

    async def _go_on(self, answer: Answer) -> None:
        try:
            await reenter(self._broker, self._job, answer, when_full=self._when_full)
        except AsyncWorkerError as exc:
            self.set_exception(exc)
        else:
            self.set_result(JobHandle(self._broker, self._job.id, self._job.queue))

    def _stepped(self) -> Generator[Any, None, JobHandle[R]]:
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps

    def send(self, value: Any) -> Any:
        return self._stepped().send(value)

    def throw(self, error: Any, *old: Any) -> Any:
        return self._stepped().throw(error, *old)  # three arguments until Python 3.12

    def close(self) -> None:
        self._stepped().close()
