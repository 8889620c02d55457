"""Look up what is known elsewhere about an item, and add it.

Parameters: ``{"enrichment_config": {"lookups": [{"field": "carrier", "table": {"UA": "United"}, "into": "airline"},
{"field": "dest", "file": "airports.csv", "key": "faa", "fields": {"city": "name", "height": "alt"}},
{"field": "zip", "url": "https://api.example.org/zip/{key}", "into": "place", "rate": 20},
{"field": "customer", "url": "postgresql://db/shop?table=public.customers", "key": "id", "fields": {"since": "since"}}]}}``.

The value of ``field``, as text, is the key. What is found goes whole ``into`` a field, or field by field as ``fields``
says (the item's field: the field of what was found). Where nothing is found, or the key is missing, ``default`` goes
there, null unless told otherwise; where ``required`` is true the item fails. Look-ups are made in order, and each sees
what those before it added. A look-up that cannot be asked fails the item.

Files are read whole. Web services and databases are asked once for each key: a worker process remembers
``cache_size`` answers for ``cache_ttl`` seconds, and asks at most ``rate`` times a second. URLs must hold no
passwords (`asyncworker.mapreduce.lookups` says where those go). An item that is no object fails.

The result has the rows in order, ``enriched_items``, and ``enrichment_stats``: how often each look-up found something,
found nothing, or had no key. Rows are many: name a file or table for them (``to=``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from asyncworker import registry
from asyncworker.errors import BadParameters
from asyncworker.mapreduce.conversion import ConversionError, text_of
from asyncworker.mapreduce.functions.function import Function, Work
from asyncworker.mapreduce.lookups.lookup import Lookup
from asyncworker.mapreduce.memo import NOT_ASKED, UNKNOWN, Memo, answers_of
from asyncworker.mapreduce.row import pack_row, unpack_rows
from asyncworker.mapreduce.schema import check
from asyncworker.mapreduce.value import kind, missing

MAX_KEY_BYTES = 1024
CACHE_SIZE, CACHE_TTL_S, TIMEOUT_S = 10_000, 300.0, 10.0
_TEXT = {"type": "string", "minLength": 1}
_POSITIVE = {"type": "number", "minimum": 0.001}
_SCHEMA = {
    "type": "object",
    "examples": [
        {
            "enrichment_config": {
                "lookups": [
                    {
                        "field": "carrier",
                        "table": {"AA": "American", "B6": "JetBlue", "DL": "Delta", "UA": "United"},
                        "into": "airline",
                        "default": "another",
                    }
                ]
            }
        }
    ],
    "required": ["enrichment_config"],
    "additionalProperties": False,
    "properties": {
        "enrichment_config": {
            "type": "object",
            "additionalProperties": False,
            "required": ["lookups"],
            "properties": {
                "lookups": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["field"],
                        "properties": {
                            "field": {**_TEXT, "description": "the field whose value is looked up"},
                            "name": {
                                **_TEXT,
                                "description": "what it is called in the result; the field's name if not said",
                            },
                            "table": {"type": "object", "minProperties": 1, "description": "a table: values by key"},
                            "file": {**_TEXT, "description": "a table in a file (.csv, .jsonl, …)"},
                            "url": {**_TEXT, "description": "http(s)://…{key}…, or postgresql://…?table=NAME"},
                            "key": {**_TEXT, "description": "the column that is looked up in a file or database"},
                            "into": {**_TEXT, "description": "the field that takes what is found"},
                            "fields": {
                                "type": "object",
                                "minProperties": 1,
                                "additionalProperties": _TEXT,
                                "description": "for each field to add, the field of what is found",
                            },
                            "default": {"description": "what is added where nothing is found"},
                            "required": {
                                "type": "boolean",
                                "default": False,
                                "description": "whether an item fails for which nothing is found",
                            },
                            "cache_size": {
                                "type": "integer",
                                "minimum": 1,
                                "default": CACHE_SIZE,
                                "description": "how many answers a worker process remembers",
                            },
                            "cache_ttl": {**_POSITIVE, "default": CACHE_TTL_S, "description": "for how many seconds"},
                            "rate": {**_POSITIVE, "description": "requests a second of each worker process, at most"},
                            "timeout": {**_POSITIVE, "default": TIMEOUT_S, "description": "seconds for one request"},
                        },
                    },
                    "description": "what is looked up, in order: each has one of table, file and url, and one of into and fields",
                }
            },
        }
    },
}


class DataEnrichment:
    name = "data_enrichment"
    summary = "Add what tables, files, web services or databases know about a field."
    schema: Mapping[str, Any] = _SCHEMA

    def prepare(self, params: Mapping[str, Any]) -> Work:
        check(self.schema, params)
        return _Enrichment(params["enrichment_config"]["lookups"])


FUNCTION: Function = DataEnrichment()

FOUND, NOT_FOUND, NO_KEY = range(3)
Mapped = tuple[bytes, list[int]]
"""A packed row, and what came of each look-up."""
_SCHEME = re.compile(r"([a-z]+)://", re.IGNORECASE)


class _Enrichment:
    """The accumulator: ``[items, [[found, not found, without a key] of each look-up], [rows]]``."""

    def __init__(self, lookups: list[Mapping[str, Any]]) -> None:
        where = "enrichment_config.lookups"
        self._steps = [_Step(config, f"{where}[{at}]") for at, config in enumerate(lookups)]
        names = [step.name for step in self._steps]
        if twice := {name for name in names if names.count(name) > 1}:
            raise BadParameters(f"{where}: two are called {min(twice)!r}: give one another name")
        asked, added = [], set[str]()
        for step in self._steps:
            asked += [step.field] if step.field not in added else []
            added.update(step.adds)
        self.fields = tuple(dict.fromkeys(asked))

    def initial(self) -> list[Any]:
        return [0, [[0, 0, 0] for _ in self._steps], []]

    def map(self, item: Any) -> Any:
        """Return a `Mapped`: at once where all answers are at hand, else when they are."""
        if not isinstance(item, dict):
            raise ValueError(f"the item is {kind(item)}, not an object")  # noqa: TRY004 - the data is wrong, not the code
        row, outcomes = dict(item), list[int]()
        for at, step in enumerate(self._steps):
            if (answer := step.at_hand(row)) is NOT_ASKED:
                return self._ask(row, outcomes, at)
            outcomes.append(step.add(row, answer))
        return pack_row(row), outcomes

    async def _ask(self, row: dict[str, Any], outcomes: list[int], first: int) -> Mapped:
        outcomes += [step.add(row, await step.answer(row)) for step in self._steps[first:]]
        return pack_row(row), outcomes

    def fold(self, acc: list[Any], value: Mapped) -> list[Any]:
        row, outcomes = value
        acc[0] += 1
        for counts, outcome in zip(acc[1], outcomes, strict=True):
            counts[outcome] += 1
        acc[2].append(row)
        return acc

    def merge(self, left: list[Any], right: list[Any]) -> list[Any]:
        for mine, theirs in zip(left[1], right[1], strict=True):
            mine[:] = [one + other for one, other in zip(mine, theirs, strict=True)]
        left[2].extend(right[2])
        return [left[0] + right[0], *left[1:]]

    def take_rows(self, acc: list[Any]) -> list[Any]:
        rows, acc[2] = acc[2], []
        return unpack_rows(rows)

    def finish(self, acc: list[Any], failed: int = 0) -> dict[str, Any]:
        items, counts, rows = acc
        lookups = {
            step.name: dict(zip(("found", "not_found", "without_key"), of, strict=True))
            for step, of in zip(self._steps, counts, strict=True)
        }
        enriched = {"enriched_items": unpack_rows(rows)} if len(rows) == items else {}  # else they were taken
        return {**enriched, "enrichment_stats": {"items": items, "failed": failed, "lookups": lookups}}

    async def close(self) -> None:
        for step in self._steps:
            await step.close()


class _Step:
    """One look-up: where its key comes from, who answers, and where the answer goes."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.field: str = config["field"]
        self.name: str = config.get("name", self.field)
        _one_of(config, where, "into", "fields")
        self._into: str | None = config.get("into")
        self._fields: Mapping[str, str] = config.get("fields", {})
        self.adds = [self._into] if self._into else list(self._fields)
        self._default = config.get("default")
        self._required = config.get("required", False)
        self._table: Mapping[str, Any] | None = config.get("table")
        _one_of(config, where, "table", "file", "url")
        self._memo = None if self._table is not None else _memo(config, where)

    def at_hand(self, row: Mapping[str, Any]) -> Any:
        """Return the answer for a row: `UNKNOWN`, None for want of a key, `NOT_ASKED` where it is not at hand."""
        key = self._key(row)
        if key is None:
            return _NO_KEY
        return self._table.get(key, UNKNOWN) if self._table is not None else self._of_memo().remembered(key)

    async def answer(self, row: Mapping[str, Any]) -> Any:
        """As `at_hand`, but ask who must be asked. Raises SourceError."""
        answer = self.at_hand(row)
        key = self._key(row)
        return await self._of_memo().get(key) if answer is NOT_ASKED and key is not None else answer

    def add(self, row: dict[str, Any], answer: Any) -> int:
        """Add an answer to a row."""
        known = answer is not UNKNOWN and answer is not _NO_KEY
        if not known and self._required:
            raise ValueError(f"nothing is found for field {self.field!r}")
        if self._into:
            row[self._into] = answer if known else self._default
        elif known and not isinstance(answer, Mapping):
            raise ValueError(f"for field {self.field!r} {kind(answer)} is found, which has no fields")
        else:
            row |= {new: answer.get(of) if known else self._default for new, of in self._fields.items()}
        return FOUND if known else NO_KEY if answer is _NO_KEY else NOT_FOUND

    async def close(self) -> None:
        if self._memo is not None:
            await self._memo.close()

    def _key(self, row: Mapping[str, Any]) -> str | None:
        value = row.get(self.field)
        if missing(value):
            return None
        try:
            key = text_of(value)
            if len(key.encode()) <= MAX_KEY_BYTES:
                return key
        except (ConversionError, UnicodeEncodeError):
            pass
        raise ValueError(f"field {self.field!r} is {kind(value)}, which makes no key")

    def _of_memo(self) -> Memo:
        assert self._memo is not None, "who has a table needs no memo"
        return self._memo


_NO_KEY: Any = object()


def _memo(config: Mapping[str, Any], where: str) -> Memo:
    url = config.get("file") or config["url"]
    scheme = "file" if "file" in config else found[1].lower() if (found := _SCHEME.match(url)) else ""
    if "url" in config and scheme in ("", "file"):
        raise BadParameters(f"{where}.url must begin with http://, https:// or postgresql://; a path goes into file")
    timeout_s = config.get("timeout", TIMEOUT_S)
    lookup: Lookup = registry.find("lookup", scheme).open(url, config.get("key"), timeout_s)
    answers = answers_of(
        f"{url} {config.get('key', '')}", config.get("cache_size", CACHE_SIZE), config.get("cache_ttl", CACHE_TTL_S)
    )
    return Memo(lookup, answers, config.get("rate"))


def _one_of(config: Mapping[str, Any], where: str, *names: str) -> None:
    if sum(name in config for name in names) != 1:
        raise BadParameters(f"{where} must have one of {', '.join(names[:-1])} and {names[-1]}")
