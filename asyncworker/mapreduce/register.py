"""Register: which map/reduce jobs there are, found without a walk through all other jobs.

The last thousand ids lie in the engine's keep. It is for those who look; what is missing there is missed by nobody else.
"""

from __future__ import annotations

import contextlib

from asyncworker.errors import KeepError
from asyncworker.queue.codec import is_id
from asyncworker.queue.keeps.keep import Keep

LOG = "runs"
KEPT = 1_000


async def note(keep: Keep | None, job_id: str) -> None:
    """Note a new job, where there is a keep and it can be reached. Cost: a round trip."""
    if keep is not None:
        with contextlib.suppress(KeepError):
            await keep.append(LOG, [job_id.encode()], KEPT)


async def noted(keep: Keep) -> list[str]:
    """Return the ids of the last thousand jobs, youngest first; some may be forgotten by now.

    Raises:
        KeepError: the keep cannot be reached.
    """
    ids = {text for entry in await keep.last(LOG, KEPT) if is_id(text := entry.decode(errors="replace"))}
    return sorted(ids, reverse=True)
