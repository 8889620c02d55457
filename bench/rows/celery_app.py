"""The app of Celery's workers."""

from __future__ import annotations

import os

from celery import Celery

from bench.rows import rule

app = Celery("rows", broker=os.environ.get("ROWS_BROKER"), backend=os.environ.get("ROWS_BROKER"))
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)


@app.task(name="part")
def part(dsn, first, last):
    return rule.part(dsn, first, last)


@app.task(name="total")
def total(values):
    return sum(values)
