"""Doing: what people can do from each page of the dashboard. What cannot be undone is done when a word was typed."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from asyncworker.daemon import form
from asyncworker.daemon.actions import Actions, Done
from asyncworker.daemon.template import Page
from asyncworker.daemon.views import Views


class Doing:
    """Each method does what the form of one page says: it returns what was done, in a sentence, or a page that asks back.

    Each may raise what its action raises, and `BadParameters` for a form that does not fit.
    """

    def __init__(self, views: Views, actions: Actions) -> None:
        self._views, self._actions = views, actions

    async def queues(self, request: web.Request, fields: form.Fields) -> str | Page:
        queue, actions = fields.one("target"), self._actions
        match fields.one("do"):
            case "pause":
                if asking := _asking(
                    fields, f"Pause {queue}", "Nothing of it is handed out until it is resumed.", queue
                ):
                    return asking
                await actions.pause(queue)
                said = f"Queue {queue} is paused."
            case "resume":
                await actions.resume(queue)
                said = f"Queue {queue} hands out its jobs again."
            case "bound":
                most = form.whole("most", text) if (text := fields.one("most")) else None
                await actions.bound(queue, most)
                said = f"Queue {queue} takes {'any number of jobs' if most is None else f'{most:,} jobs at most'}."
            case other:
                raise form.unknown(other)
        await self._views.history.sample()  # what the page shows next is younger than what was done
        return said

    async def jobs(self, request: web.Request, fields: form.Fields) -> str | Page:
        return await self._to(fields, fields.all("id"))

    async def job(self, request: web.Request, fields: form.Fields) -> str | Page:
        return await self._to(fields, [request.match_info["id"]])

    async def _to(self, fields: form.Fields, ids: Sequence[str]) -> str | Page:
        if not ids:
            raise form.nothing_chosen()
        what = ids[0] if len(ids) == 1 else f"{len(ids)} jobs"
        match fields.one("do"):
            case "cancel":
                return _told("Cancelled", await self._actions.cancel(ids), "over already")
            case "retry" | "replay":
                return _told(
                    "Enqueued again", await self._actions.retry(ids), "no dead letters, or cannot be enqueued now"
                )
            case "delete" | "purge":
                if asking := _asking(
                    fields,
                    f"Delete {what}",
                    "Nobody will know of it any more. Only dead letters can be deleted.",
                    "delete",
                ):
                    return asking
                return _told("Deleted", await self._actions.purge(ids), "no dead letters")
            case other:
                raise form.unknown(other)

    async def dead(self, request: web.Request, fields: form.Fields) -> str | Page:
        queue, task = (request.query.get(name, "").strip() for name in ("queue", "task"))
        which = (
            " and ".join(filter(None, [f"of queue {queue}" if queue else "", f"of task {task}" if task else ""]))
            or "there are"
        )
        match fields.one("do"):
            case "replay all":
                if asking := _asking(fields, "Replay all", f"All dead letters {which} are enqueued again.", "replay"):
                    return asking
                return _told("Enqueued again", await self._actions.retry_dead(queue, task), "cannot be enqueued now")
            case "purge all":
                if asking := _asking(fields, "Purge all", f"All dead letters {which} are forgotten for ever.", "purge"):
                    return asking
                return _told("Deleted", await self._actions.purge_dead(queue, task), "left")
            case _:
                return await self._to(fields, fields.all("id"))

    async def schedules(self, request: web.Request, fields: form.Fields) -> str | Page:
        name, actions = fields.one("target"), self._actions
        match fields.one("do"):
            case "add":
                args, kwargs = form.arguments(fields.one("args"))
                every = form.interval(fields.one("every"))
                name = fields.one("name")
                new = await actions.add_schedule(
                    name,
                    fields.one("task"),
                    args,
                    kwargs,
                    cron=fields.one("cron"),
                    every=every,
                    tz=fields.one("tz") or "UTC",
                    missed=form.missed(fields.one("missed")),
                )
                return f"Schedule {name} is {'added' if new else 'changed'}; workers know it in ten seconds at most."
            case "run":
                return f"Enqueued job {await actions.run_schedule(name)}."
            case "rm":
                if asking := _asking(fields, f"Remove {name}", "It fires no more. What it has enqueued stays.", name):
                    return asking
                await actions.remove_schedule(name)
                return f"Schedule {name} is removed."
            case other:
                raise form.unknown(other)

    async def workers(self, request: web.Request, fields: form.Fields) -> str | Page:
        name, actions = fields.one("target"), self._actions
        match fields.one("do"):
            case "stop":
                if asking := _asking(
                    fields, f"Stop {name}", "It ends when the jobs that it runs are done; others may be started.", name
                ):
                    return asking
                await actions.stop_worker(name)
                return f"Worker {name} was told to stop."
            case "restart":
                if asking := _asking(fields, "Restart all", "Each goes when its successor works.", "restart"):
                    return asking
                await actions.restart_workers()
                return "Workers are replaced, one after another."
            case other:
                raise form.unknown(other)


def _asking(fields: form.Fields, title: str, question: str, word: str) -> Page | None:
    """Return a page that asks to type *word* before *title* is done; None where it was typed."""
    if (typed := fields.one("confirm")) == word:
        return None
    kept = [(name, value) for name, value in fields.pairs if name != "confirm"]
    return Page("confirm", title, {"question": question, "word": word, "fields": kept, "wrong": bool(typed)})


def _told(what: str, done: Done, why: str) -> str:
    jobs = "1 job" if len(done.done) == 1 else f"{len(done.done):,} jobs"
    left = f" {len(done.left):,} left as they are: {why}." if done.left else ""
    return f"{what}: {jobs}.{left}"
