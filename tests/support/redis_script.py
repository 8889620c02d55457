"""The functions of ``brokers/lua`` as they are: a blocking connection, time passed in, answers as Redis gives them."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import hiredis
import msgspec

from asyncworker.queue.body import LIMITED, OPTIONS, pack_body
from asyncworker.queue.brokers.redis import TEXT
from asyncworker.queue.codec import base32
from asyncworker.queue.job import Job, WorkerCard
from asyncworker.queue.script import library, name_of

START_MS = 1_700_000_000_000
LIBRARY = name_of(TEXT)


class ScriptError(Exception):
    """Redis answered with an error."""


class Raw:
    """One blocking connection to a server on a unix socket, a third of the cost of a client's."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(unquote(urlsplit(url).path))
        self._reader = hiredis.Reader(replyError=ScriptError)

    def __call__(self, *command: Any) -> Any:
        (answer,) = self.many([command])
        if isinstance(answer, ScriptError):
            raise answer
        return answer

    def many(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Send all, then read all; errors are answers."""
        packed = [hiredis.pack_command(tuple(command)) for command in commands]
        self._socket.sendall(b"".join(packed))
        return [self.read() for _ in packed]

    def read(self) -> Any:
        while (answer := self._reader.gets()) is False:
            data = self._socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
        return answer

    def load(self, name: str = LIBRARY, text: str = TEXT) -> None:
        """Load a text as a library of that name."""
        self("FUNCTION", "LOAD", "REPLACE", library(name, text))

    def close(self) -> None:
        self._socket.close()


class Script:
    """One tag of keys, one loaded library, and a clock that stands still."""

    _tags = itertools.count()

    def __init__(self, url: str, raw: Raw, library: str) -> None:
        self.url = url
        self.raw = raw
        self.library = library
        self.tag = f"{{test-script-{next(self._tags)}:0}}:"
        self.now = START_MS
        self._lane = 0
        self._ids = itertools.count()
        self._seq: dict[str, int] = {}
        self._asleep: set[str] = set()

    def fcall(self, verb: str, *args: Any, now: int | None = None) -> Any:
        return self.raw("FCALL", f"{self.library}_{verb}", 1, f"{self.tag}b", self.now if now is None else now, *args)

    def redis(self, command: str, key: str, *args: Any) -> Any:
        """Run a plain command on one of our keys."""
        return self.raw(command, self.tag + key, *args)

    def new_ids(self, count: int) -> list[str]:
        """Return ids of one block: each 32 of them share a bucket."""
        return [base32(START_MS, 9) + "0" * 12 + base32(next(self._ids), 5) for _ in range(count)]

    def job(self, id: str = "", queue: str = "q", payload: bytes = b"call", **more: Any) -> Job:
        return Job(**{"id": id or self.new_ids(1)[0], "queue": queue, "payload": payload} | more)

    def send(self, *jobs: Job, seq: int = 0, lane: str = "lane") -> list[Any]:
        """Make one ENQUEUE call, one run or single a job."""
        self._lane = seq or self._lane + 1
        args: list[Any] = [lane, self._lane]
        for job in jobs:
            delay, at, body = round(job.delay_s * 1000), round(job.at_s * 1000), pack_body(job)
            plain = body[1] & ~LIMITED <= OPTIONS and not (delay or at or len(job.id) > 26)
            args += [job.queue, job.priority, int(plain), job.id, body]
            args += [] if plain else [delay, at, job.hold]
            args += [len(job.after), *job.after] if job.after else []
        return self.fcall("enqueue", *args)

    def put(self, *jobs: Job, count: int = 0, **more: Any) -> list[str]:
        """Enqueue jobs, or a run of new ones of one queue and priority, and return their ids."""
        if count:
            ids = self.new_ids(count)
            made = [self.job(id, **more) for id in ids]
            self._lane += 1
            run = [word for job in made for word in (job.id, pack_body(job))]
            said = self.fcall("enqueue", "lane", self._lane, made[0].queue, made[0].priority, count, *run)
        else:
            ids = [job.id for job in jobs]
            said = self.send(*jobs)
        assert said == [1, b""], said
        return ids

    def join(self, epoch: str = "e1", queues: Sequence[str] = ("q",), lease_ms: int = 10_000) -> str:
        card = WorkerCard("host", 7, tuple(queues), 10, lease_ms / 1000, 1.5, "1.0")
        assert self.fcall("join", epoch, msgspec.msgpack.encode(card), lease_ms) == 1
        self._seq[epoch] = 0
        return epoch

    def parent(self, children: int, holder: str = "feeder", queue: str = "q") -> tuple[str, list[str]]:
        """Let a feeder join and hold a parent of new children."""
        self.join(holder)
        (parent,) = self.put(self.job(queue=queue, hold=holder))
        ids = [f"{parent}.{part}" for part in range(children)]
        if ids:
            self.put(*(self.job(id, queue) for id in ids))
        return parent, ids

    def after(self, *formers: str, id: str = "", **more: Any) -> str:
        """Enqueue a job that waits for others, and return its id."""
        options = {name: more.pop(name) for name in ("input", "inputs", "allow_failure", "unique") if name in more}
        (id,) = self.put(self.job(id, after=formers, options={"x": 1} | options, **more))
        return id

    def step(
        self,
        epoch: str = "e1",
        want: int = 0,
        *settled: tuple[Any, ...],
        runs: Sequence[tuple[str, int, Sequence[tuple[str, bytes]]]] = (),
        queues: Sequence[str | tuple[str, int]] = ("q",),
        seq: int = 0,
        lowest: bool = False,
        idle: int = 0,
        asleep: int = 0,
        now: int | None = None,
    ) -> list[Any]:
        """Make one STEP call and return the answer, ids as text. *asleep* in all of *queues*: 1 yes, 2 perhaps."""
        self._seq[epoch] = seq or self._seq.get(epoch, 0) + 1
        args: list[Any] = [epoch, self._seq[epoch], want]
        args += [int(lowest), int(idle), len(queues)]
        for queue in queues:
            args += (queue, want) if isinstance(queue, str) else queue
            args.append(int(asleep))
        args.append(len(runs))
        for name, ttl, pairs in runs:
            args += [name, ttl, len(pairs)]
            for pair in pairs:
                args += pair
        for one in settled:
            args += [*one, *(0, b"")[len(one) - 2 :]]
        answer = self.fcall("step", *args, now=now)
        if len(answer) > 3:
            answer[3] = [id.decode() for id in answer[3]]
        return answer

    def claim(self, epoch: str = "e1", want: int = 1, *settled: tuple[Any, ...], **more: Any) -> list[str]:
        """Make one STEP call and return the ids of what it claimed."""
        answer = self.step(epoch, want, *settled, **more)
        assert answer[0] == 1, answer
        return answer[3]

    def reap(self, epoch: str = "e1", seen: bytes | str = "", *, crashed: bool = True, most: int = 3) -> int:
        return self.fcall("reap", epoch, seen, int(crashed), most)

    def cancel(self, id: str) -> str | None:
        said = self.fcall("cancel", id)
        return said and said.decode()

    def find(self, id: str) -> list[Any]:
        (found,) = self.fcall("find", id)
        return found

    def state(self, id: str) -> str:
        """Return a state's word, a letter of a job that is over, or '' of one that nobody knows."""
        return (self.find(id) or [b""])[0].decode()

    def look(self, *ids: str) -> list[bytes | None]:
        return self.fcall("look", "", *ids)

    def note(self, id: str) -> dict[str, Any]:
        note = self.redis("HGET", "x", id)
        return msgspec.msgpack.decode(note) if note else {}

    def hash(self, key: str) -> dict[str, bytes]:
        said = self.redis("HGETALL", key)
        return {field.decode(): value for field, value in zip(said[::2], said[1::2], strict=True)}

    def counts(self, queue: str = "q") -> dict[str, int]:
        """Return what is counted of a queue, without zeros."""
        counts = {field.rpartition(":"): int(value) for field, value in self.hash("c").items()}
        return {letter: count for (name, _, letter), count in counts.items() if name == queue and count}

    def list(self, queue: str = "q", level: int = 5) -> list[str]:
        return [id.decode() for id in self.redis("LRANGE", f"r:{queue}:{level}", 0, -1)]

    def names(self) -> set[str]:
        """Return the names of all keys but the lists of jobs that are over."""
        names = {key.decode().removeprefix(self.tag) for key in self.raw("KEYS", self.tag.replace("{", "\\{") + "*")}
        return {name for name in names if name[0] != "y" or name == "y:b"}

    def held(self, epoch: str = "e1") -> set[str]:
        return set(self.hash(f"a:{epoch}")) - {""}


class Ear:
    """A subscription to inboxes of one script's tag."""

    def __init__(self, script: Script, *names: str) -> None:
        self._raw = Raw(script.url)
        self._names = [f"{script.tag}in:{name}" for name in names]
        self._raw.many([("SUBSCRIBE", name) for name in self._names])

    def heard(self) -> list[tuple[str, bytes]]:
        """Return (name, message) of all that was published until now."""
        self._raw._socket.sendall(hiredis.pack_command(("PING",)))
        heard = []
        while (said := self._raw.read())[0] != b"pong":
            heard.append((said[1].decode().rpartition(":")[2], said[2]))
        return heard

    def close(self) -> None:
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
