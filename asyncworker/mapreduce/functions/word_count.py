"""Count words: the hello world of map/reduce, for text of any script.

Parameters: ``{"field": "text", "casefold": true, "top": 1000}``; without ``field`` the item itself is the text.

A word is a run of letters, marks and digits, with single apostrophes inside ("don't", straight or curled);
scripts that put no space between words (Han, Thai) give one word a run. Text is brought to Unicode's composed form
(NFC), and unless told otherwise upper and lower case count as one. A missing field has no words; what is no text fails.

The result has ``total`` words, of which ``distinct`` are different, and the ``top`` most frequent as ``words``
(``{"word": "a", "count": 2}``), of equals the one first in the alphabet of code points. Counts are exact. Very many
distinct words are shared out among workers, of which each holds a share, at about 150 bytes a word.
"""

from __future__ import annotations

import heapq
import unicodedata
from collections.abc import Mapping
from typing import Any

from asyncworker.mapreduce.functions.function import Function, Work
from asyncworker.mapreduce.pattern import find_all
from asyncworker.mapreduce.schema import check
from asyncworker.mapreduce.value import kind, missing

_SCHEMA = {
    "type": "object",
    "examples": [{"field": "text", "top": 10}],
    "additionalProperties": False,
    "properties": {
        "field": {"type": "string", "description": "the field that holds the text; without it, the item is the text"},
        "casefold": {"type": "boolean", "default": True, "description": "whether upper and lower case count as one"},
        "top": {"type": "integer", "minimum": 1, "default": 1000, "description": "how many words the result lists"},
    },
}


class WordCount:
    name = "word_count"
    summary = "Count words, and list the most frequent."
    schema: Mapping[str, Any] = _SCHEMA

    def prepare(self, params: Mapping[str, Any]) -> Work:
        check(self.schema, params)
        return _WordCount(params.get("field"), casefold=params.get("casefold", True), top=params.get("top", 1000))


FUNCTION: Function = WordCount()

_find_words = find_all(r"[\pL\pM\pN]+(?:'[\pL\pM\pN]+)*")


class _WordCount:
    """The accumulator: ``{word: count}``. By keys, and each share of them leaves its own result (`Condensing`)."""

    def __init__(self, field: str | None, *, casefold: bool, top: int) -> None:
        self.fields = () if field is None else (field,)
        self._field = field
        self._casefold = casefold
        self._top = top

    def initial(self) -> dict[str, int]:
        return {}

    def map(self, item: Any) -> list[str]:
        text = item
        if self._field is not None:
            if not isinstance(item, dict):
                raise ValueError(f"the item is {kind(item)}, not an object")
            text = item.get(self._field)
        if missing(text):
            return []
        if not isinstance(text, str):
            where = "the item" if self._field is None else f"field {self._field!r}"
            raise ValueError(f"{where} is {kind(text)}, not text")  # noqa: TRY004 - the data is wrong, not the code
        if self._casefold:
            text = text.casefold()
        return _find_words(unicodedata.normalize("NFC", text).replace("\u2019", "'"))

    def fold(self, acc: dict[str, int], value: list[str]) -> dict[str, int]:
        for word in value:
            acc[word] = acc.get(word, 0) + 1
        return acc

    def merge(self, left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
        for word, count in right.items():
            left[word] = left.get(word, 0) + count
        return left

    def finish(self, acc: dict[str, int], failed: int = 0) -> dict[str, Any]:
        top = heapq.nsmallest(self._top, acc.items(), key=lambda pair: (-pair[1], pair[0]))
        words = [self.row(word, count) for word, count in top]
        return {"total": sum(acc.values()), "distinct": len(acc), "words": words}

    def condense(self, acc: dict[str, int]) -> dict[str, Any]:
        return self.finish(acc)

    def joined(self, shares: list[Any]) -> dict[str, Any]:
        words = [word for share in shares for word in share["words"]]
        return {
            "total": sum(share["total"] for share in shares),
            "distinct": sum(share["distinct"] for share in shares),
            "words": heapq.nsmallest(self._top, words, key=lambda word: (-word["count"], word["word"])),
        }

    def order(self, key: str) -> str:
        return key

    def row(self, key: str, value: int) -> dict[str, Any]:
        return {"word": key, "count": value}

    def whole(self, rows: list[Any]) -> dict[str, Any]:
        return self.finish({row["word"]: row["count"] for row in rows})
