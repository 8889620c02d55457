"""What people may set, each once: its name, type, default, a line of doc, and whether it is a secret.

A value comes from the first of: a flag (``--grace-period``), a variable (``ASYNCWORKER_GRACE_PERIOD``), a TOML
file (``grace_period = "30s"``; named by ``--config`` or ``ASYNCWORKER_CONFIG``, else ``asyncworker.toml`` here,
if there is one), the default. Only the front reads settings; the floors below take plain arguments.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import quote

import msgspec

from asyncworker.errors import SettingsError, UnknownName, nearest
from asyncworker.kind import (
    Kind,
    address,
    auto_or,
    boolean,
    broker_url,
    choice,
    names,
    number,
    number_or_share,
    percent,
    seconds,
    text,
    url,
    words,
)
from asyncworker.secret import MASK, mask_url

PREFIX = "ASYNCWORKER_"
CONFIG = f"{PREFIX}CONFIG"
CONFIG_FILE = Path("asyncworker.toml")

Auto = Literal["auto"]


class Setting(msgspec.Struct, frozen=True):
    """What is known about one setting. A ``secret`` is never shown, of other texts only their passwords are not."""

    kind: Kind
    doc: str
    secret: bool = False


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that may be set. None: not set, and the command that reads it says what that means."""

    broker: Annotated[str | None, Setting(broker_url(), "Where jobs travel.")] = None
    namespace: Annotated[str, Setting(text(), "Prefix of every key in the broker.")] = "asyncworker"
    app: Annotated[
        str | None, Setting(text("MODULE:NAME"), "Your engine, as module:attribute; its tasks and functions.")
    ] = None
    queues: Annotated[tuple[str, ...], Setting(names(), "Queues to work on, with their weights; else all known.")] = ()
    concurrency: Annotated[int | Auto, Setting(auto_or(number(1, 10_000)), "Jobs in flight in one worker.")] = "auto"
    workers: Annotated[
        int | Auto | None, Setting(auto_or(number(0, 1000)), "Worker processes to start here, supervised.")
    ] = None
    min_workers: Annotated[int | None, Setting(number(0, 1000), "Worker processes that are always there; else 1.")] = (
        None
    )
    max_workers: Annotated[
        int | Auto, Setting(auto_or(number(1, 1000)), "Worker processes at most; auto is one a usable processor.")
    ] = "auto"
    cpu_threshold: Annotated[
        float, Setting(percent(), "Share of the processors in use above which no worker is added.")
    ] = 95.0
    memory_threshold: Annotated[
        float, Setting(percent(), "Share of the memory in use above which no worker is added.")
    ] = 85.0
    queue_threshold: Annotated[
        int | None, Setting(number(1), "So many jobs waiting in one queue force one more worker.")
    ] = None
    recycle_jobs: Annotated[
        int | None, Setting(number(1), "Replace a worker that has done so many jobs by a new one.")
    ] = None
    recycle_memory: Annotated[
        int | None, Setting(number(1), "Replace a worker that takes so many MiB of memory by a new one.")
    ] = None
    worker_memory_limit: Annotated[
        int | None, Setting(number(64), "A worker that takes more than so many MiB of memory meets a MemoryError.")
    ] = None
    supervisor: Annotated[
        str | None, Setting(text("PLACE:NAME"), "Where this worker tells how it is; set by its supervisor.")
    ] = None
    lease: Annotated[
        float, Setting(seconds(0.2, 3600), "Silence after which a worker counts as dead and its jobs go to others.")
    ] = 10.0
    grace_period: Annotated[float, Setting(seconds(0, 86_400), "How long running jobs may go on after a stop.")] = 30.0
    cancel_grace: Annotated[float, Setting(seconds(0, 86_400), "How long cancelled jobs may go on.")] = 10.0
    burst: Annotated[bool, Setting(boolean(), "Stop when the queues are empty.")] = False
    reload: Annotated[bool, Setting(boolean(), "Start anew when a file of your engine's package changes.")] = False
    metrics_port: Annotated[
        int | None, Setting(number(0, 65_535), "Serve /metrics on this port of 127.0.0.1 (0: any free one).")
    ] = None
    http: Annotated[
        str, Setting(address(), "Where the daemon serves its dashboard, API and metrics; off: nowhere.")
    ] = "127.0.0.1:8787"
    http_tokens: Annotated[
        str | None, Setting(text("FILE"), "Who may ask the daemon: hashed tokens, made by 'asyncworker token add'.")
    ] = None
    http_hosts: Annotated[
        tuple[str, ...], Setting(words("NAME,NAME"), "Names by which the daemon may be asked, beside its address.")
    ] = ()
    http_tls_cert: Annotated[str | None, Setting(text("FILE"), "The daemon's certificate, with its chain.")] = None
    http_tls_key: Annotated[str | None, Setting(text("FILE"), "The key of the daemon's certificate.")] = None
    insecure: Annotated[
        bool, Setting(boolean(), "Serve others without tokens or TLS, too: behind a proxy that has both.")
    ] = False
    show_arguments: Annotated[
        bool, Setting(boolean(), "Show arguments and results of jobs to whoever may read the daemon.")
    ] = False
    no_profile: Annotated[
        bool, Setting(boolean(), "Do not measure where jobs spend their time, and what holds the event loop.")
    ] = False
    log_level: Annotated[str, Setting(choice("debug", "info", "warning", "error"), "What is worth a log line.")] = (
        "info"
    )
    log_format: Annotated[str, Setting(choice("text", "json"), "Log lines for people or for machines.")] = "text"
    function: Annotated[
        str | None, Setting(text("NAME"), "The processing function, by name; of your own mapper+reducer.")
    ] = None
    params: Annotated[str | None, Setting(text("FILE|JSON"), "The function's parameters: a JSON file, or JSON.")] = None
    to: Annotated[str | None, Setting(text("SINK"), "Where the result goes as well: a file or URL.")] = None
    failed_to: Annotated[
        str | None, Setting(text("SINK"), "Where failed items go, with their errors: a file or URL.")
    ] = None
    item_attempts: Annotated[int, Setting(number(1, 100), "How often an item is mapped until it counts as failed.")] = 1
    partition_attempts: Annotated[
        int | None, Setting(number(1, 100), "How often a partition is tried until the job fails; else 3 times.")
    ] = None
    partitions_at_once: Annotated[
        int | Auto, Setting(auto_or(number(1)), "Partitions under way at once; auto is what the workers have room for.")
    ] = "auto"
    fan_in: Annotated[
        int | Auto, Setting(auto_or(number(2)), "How many partial results a step of the reduction merges.")
    ] = "auto"
    reducers: Annotated[
        int | Auto, Setting(auto_or(number(1, 1024)), "Among how many jobs the keys of a reduction are shared out.")
    ] = "auto"
    no_speculate: Annotated[
        bool, Setting(boolean(), "Do no partition a second time because it takes far longer than the others.")
    ] = False
    priority: Annotated[int, Setting(number(0, 9), "Which jobs go first: 9 before 0.")] = 5
    cache: Annotated[
        bool, Setting(boolean(), "Take the result of a job that did the same over the same data, if it is still there.")
    ] = False
    cache_version: Annotated[
        str | None,
        Setting(text(), "The same with a version of data or code that you name: another one is another job."),
    ] = None
    resume: Annotated[str | None, Setting(text("JOB"), "Do what is left of a job that failed at most a day ago.")] = (
        None
    )
    partition_size: Annotated[int | Auto, Setting(auto_or(number(1)), "Items in one partition.")] = "auto"
    max_failures: Annotated[
        int | float | None, Setting(number_or_share(0), "Failed items after which the job fails; else none does.")
    ] = None
    missing: Annotated[str | None, Setting(text(), "The text that stands for a missing value in a CSV file.")] = None
    database: Annotated[
        str | None,
        Setting(url("postgresql", "postgres", example="postgresql://user@host/name"), "PostgreSQL for results."),
    ] = None
    outbox: Annotated[
        str | None,
        Setting(
            url("postgresql", "postgres", example="postgresql://user@host/name"),
            "PostgreSQL whose outbox this worker enqueues from.",
        ),
    ] = None
    result_store: Annotated[
        str | None,
        Setting(text("URL"), "Where large results lie: file:///some/folder or postgresql://…; else with their jobs."),
    ] = None
    result_offload: Annotated[int, Setting(number(1), "Bytes above which a result is large.")] = 262_144
    result_cache: Annotated[
        str | None,
        Setting(
            url("postgresql", "postgres", example="postgresql://user@host/name"),
            "PostgreSQL where results of --cache lie as well.",
        ),
    ] = None
    cache_ttl: Annotated[float, Setting(seconds(1, 10**8), "How long results of --cache may be taken.")] = 86_400.0
    signing_key: Annotated[
        tuple[str, ...],
        Setting(
            words("KEY,KEY"),
            "Keys by which jobs are signed (the first) and accepted (all; KEY@2026-12-31 until then).",
            secret=True,
        ),
    ] = ()
    db_host: Annotated[str | None, Setting(text(), "Host of the database, where no URL of it is given.")] = None
    db_name: Annotated[str | None, Setting(text(), "Name of the database, where no URL of it is given.")] = None
    db_user: Annotated[str | None, Setting(text(), "User of the database, where no URL of it is given.")] = None
    db_password: Annotated[
        str | None, Setting(text(), "Password of the database, where no URL of it is given.", secret=True)
    ] = None
    keep: Annotated[
        str | None,
        Setting(
            text("URL|FILE"), "Where decisions and what was learned are kept: a file, or redis://…; else with the jobs."
        ),
    ] = None
    kwargs: Annotated[str | None, Setting(text("JSON"), "Named arguments of the task, as a JSON object.")] = None
    cron: Annotated[
        str | None, Setting(text("EXPRESSION"), "Five fields of a crontab; six with the seconds first.")
    ] = None
    every: Annotated[float | None, Setting(seconds(0.1, 10**8), "The time from tick to tick.")] = None
    tz: Annotated[str, Setting(text("ZONE"), "Time zone of --cron, such as Europe/Berlin.")] = "UTC"
    missed: Annotated[
        Literal["last", "all", "skip"],
        Setting(choice("last", "all", "skip"), "Which ticks fire late, of those in which no worker was there."),
    ] = "last"
    scope: Annotated[
        Literal["read", "submit", "admin"],
        Setting(choice("read", "submit", "admin"), "What a token may do; each may do what those before it may."),
    ] = "read"
    jobs: Annotated[int, Setting(number(1, 10**7), "How many jobs to measure with.")] = 20_000
    wait: Annotated[bool, Setting(boolean(), "Wait until the job is over.")] = False
    timeout: Annotated[float | None, Setting(seconds(0, 10**8), "How long to wait at most.")] = None
    task: Annotated[str | None, Setting(text("NAME"), "Only jobs of this task.")] = None
    since: Annotated[float | None, Setting(seconds(0, 10**8), "Only what was not longer ago than this.")] = None
    until: Annotated[float | None, Setting(seconds(0, 10**8), "Only what was at least this long ago.")] = None
    state: Annotated[tuple[str, ...], Setting(words("STATE,STATE"), "Only jobs of these states.")] = ()
    limit: Annotated[int, Setting(number(1), "So many of them at most.")] = 100
    all: Annotated[bool, Setting(boolean(), "All of them.")] = False
    yes: Annotated[bool, Setting(boolean(), "Do it without asking.")] = False
    acl: Annotated[bool, Setting(boolean(), "Print the Redis user that workers and clients need.")] = False
    once: Annotated[bool, Setting(boolean(), "Show it once and end.")] = False
    json: Annotated[bool, Setting(boolean(), "Print one JSON document on standard output.")] = False
    no_color: Annotated[bool, Setting(boolean(), "No colours, as NO_COLOR says, too.")] = False
    debug: Annotated[bool, Setting(boolean(), "Show the traceback of an unexpected error.")] = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the queues, without weights."""
        return tuple(name.partition(":")[0] for name in self.queues)

    @property
    def weights(self) -> dict[str, float]:
        """The weights of those queues that are given one."""
        return {name: float(weight) for name, _, weight in (queue.partition(":") for queue in self.queues) if weight}

    def dsn(self) -> str | None:
        """Return the database's URL: the one that was given, else one made of the ``db_*`` parts, else None."""
        parts = (self.db_host, self.db_name, self.db_user, self.db_password)
        if self.database or not any(parts):
            return self.database
        user = quote(self.db_user or "", safe="")
        password = f":{quote(self.db_password, safe='')}" if self.db_password else ""
        at = "@" if user or password else ""
        return f"postgresql://{user}{password}{at}{self.db_host or 'localhost'}/{quote(self.db_name or '', safe='')}"

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={shown(name, getattr(self, name))}' for name in SETTINGS)})"


SETTINGS: dict[str, Setting] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Settings, include_extras=True).items()
}
DEFAULTS = Settings()


class Loaded(msgspec.Struct, frozen=True):
    """Settings, and where each came from: a flag, a variable, a file, or ``default``."""

    settings: Settings
    origins: dict[str, str]


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    return PREFIX + name.upper()


def shown(name: str, value: Any) -> str:
    """Return a setting's value as people may see it."""
    if SETTINGS[name].secret and value is not None:
        return MASK
    if SETTINGS[name].kind.word == "DURATION" and value is not None:
        return f"{value:g}s"
    if isinstance(value, tuple):
        return ",".join(value)
    return mask_url(value) if isinstance(value, str) else str(value)


def load(flags: Mapping[str, str], environ: Mapping[str, str], folder: Path | None = None) -> Loaded:
    """Read all settings.

    Args:
        flags: by a setting's name, as typed; ``config`` names the file.
        environ: variables; those without our prefix are ignored, but ``NO_COLOR``.
        folder: where ``asyncworker.toml`` is looked for; else the current one.

    Raises:
        SettingsError: a name that is none, a value that does not fit, a file that cannot be read. The message
            names the flag, variable or key, and says what would fit.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(SETTINGS, "default")
    for name, origin, label, given in (
        *_file(flags.get("config") or environ.get(CONFIG), folder or Path()),
        *_variables(environ),
        *((name, flag(name), flag(name), given) for name, given in flags.items() if name != "config"),
    ):
        values[name], origins[name] = _parse(name, label, given), origin
    return Loaded(Settings(**values), origins)


def _parse(name: str, label: str, given: str) -> Any:
    setting = SETTINGS[name]
    try:
        return setting.kind.parse(given)
    except (ValueError, UnknownName) as exc:
        said = "" if setting.secret else f" {mask_url(given)!r}"
        why = f"{exc}; " if isinstance(exc, UnknownName) else ""
        raise SettingsError(f"{label}{said}: {why}want {setting.kind.wanted}") from exc


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    if environ.get("NO_COLOR"):
        yield "no_color", "NO_COLOR", "NO_COLOR", "true"
    known = {variable(name): name for name in SETTINGS}
    for key in sorted(environ):
        if key in known:
            yield known[key], key, key, environ[key]
        elif key.startswith(PREFIX) and key != CONFIG:
            close = nearest(key.removeprefix(PREFIX).lower(), SETTINGS)
            raise SettingsError(f"unknown variable {key}{_hint(close and variable(close))}")


def _file(path: str | None, folder: Path) -> Iterator[tuple[str, str, str, str]]:
    if not path and not (folder / CONFIG_FILE).is_file():
        return
    file = Path(path) if path else folder / CONFIG_FILE
    try:
        table = msgspec.toml.decode(file.read_bytes())
    except OSError as exc:
        raise SettingsError(f"cannot read {str(file)!r}: {exc.strerror}") from exc
    except ValueError as exc:
        raise SettingsError(f"{file}: no TOML: {exc}") from exc
    for key, value in table.items():
        if key not in SETTINGS:
            raise SettingsError(f"{file}: unknown key {key!r}{_hint(nearest(key, SETTINGS))}")
        yield key, str(file), f"{file}: {key}", _text(value)


def _hint(close: str | None) -> str:
    return f"; did you mean {close}?" if close else "; 'asyncworker settings --help' lists those that are known"


def _text(value: Any) -> str:
    """Return a value of a TOML file as it would be typed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)


def environment(settings: Settings) -> dict[str, str]:
    """Return variables that give a process of ours these settings and no others, secrets out of its arguments."""
    chosen = {
        variable(name): _text(value)
        for name in SETTINGS
        if (value := getattr(settings, name)) != getattr(DEFAULTS, name)
    }
    return (
        {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)} | {CONFIG: os.devnull} | chosen
    )
