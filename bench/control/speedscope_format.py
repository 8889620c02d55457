"""Is this a speedscope file? What the format's public schema asks of sampled profiles, as a check of its own.

Source: https://www.speedscope.app/file-format-schema.json (``FileFormat.File``, ``SampledProfile``, ``Frame``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
UNITS = {"none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}


def complaints(document: bytes) -> Iterator[str]:
    """Yield what is wrong with a file; nothing when it is right."""
    file: dict[str, Any] = json.loads(document)
    if file.get("$schema") != SCHEMA:
        yield "$schema is another"
    for key in ("name", "exporter"):
        if not isinstance(file.get(key, ""), str):
            yield f"{key} is no text"
    frames = file["shared"]["frames"]
    for frame in frames:
        if not isinstance(frame["name"], str) or not frame.keys() <= {"name", "file", "line", "col"}:
            yield f"no frame: {frame}"
        if not isinstance(frame.get("file", ""), str) or not isinstance(frame.get("line", 0), int):
            yield f"no place: {frame}"
    active = file.get("activeProfileIndex", 0)
    if not file["profiles"] or not 0 <= active < len(file["profiles"]):
        yield "activeProfileIndex leads nowhere"
    for profile in file["profiles"]:
        if profile["type"] != "sampled" or profile["unit"] not in UNITS or not isinstance(profile["name"], str):
            yield "no sampled profile"
        if not all(isinstance(profile[key], int | float) for key in ("startValue", "endValue")):
            yield "startValue or endValue is no number"
        if len(profile["samples"]) != len(profile["weights"]):
            yield "samples and weights differ in number"
        if any(not isinstance(index, int) or not 0 <= index < len(frames) for of in profile["samples"] for index in of):
            yield "a sample names a frame that is not there"
        if any(weight < 0 for weight in profile["weights"]):
            yield "a weight is negative"


def weight(document: bytes) -> float:
    """Return the sum of all weights of the first profile."""
    return float(sum(json.loads(document)["profiles"][0]["weights"]))
