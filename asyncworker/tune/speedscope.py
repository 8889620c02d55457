"""Where the time went, in the two forms that flame graphs are drawn from.

Sources: the format's public JSON schema (https://www.speedscope.app/file-format-schema.json), and the collapsed
stacks of Brendan Gregg's FlameGraph, one ``a;b;c number`` a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

Stack = tuple[str, ...]
Frame = tuple[str, str, int]

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def speedscope(stacks: Mapping[Stack, float], frames: Mapping[str, Frame], name: str) -> bytes:
    """Return a speedscope file: one profile of sampled stacks, outermost first, each weighing its seconds.

    Args:
        frames: by label: name, file and line; a label without one is its own name.
    """
    labels = list(dict.fromkeys(label for stack in stacks for label in stack))
    index = {label: number for number, label in enumerate(labels)}
    ranked = sorted(stacks.items())
    profile = {
        "type": "sampled",
        "name": name,
        "unit": "seconds",
        "startValue": 0,
        "endValue": sum(stacks.values()),
        "samples": [[index[label] for label in stack] for stack, _ in ranked],
        "weights": [seconds for _, seconds in ranked],
    }
    return _document([_frame(label, frames.get(label)) for label in labels], [profile], name)


def merged(documents: Iterable[bytes]) -> bytes:
    """Return the profiles of several such files side by side in one."""
    frames: list[Any] = []
    profiles: list[Any] = []
    for document in map(msgspec.json.decode, documents):
        for profile in document["profiles"]:
            samples = [[index + len(frames) for index in stack] for stack in profile["samples"]]
            profiles.append({**profile, "samples": samples})
        frames += document["shared"]["frames"]
    return _document(frames, profiles, "critical paths")


def _document(frames: list[Any], profiles: list[Any], name: str) -> bytes:
    return msgspec.json.encode(
        {
            "$schema": SCHEMA,
            "name": name,
            "exporter": "asyncworker",
            "activeProfileIndex": 0,
            "shared": {"frames": frames},
            "profiles": profiles,
        }
    )


def _frame(label: str, frame: Frame | None) -> dict[str, object]:
    if frame is None:
        return {"name": label}
    return {"name": frame[0], "file": frame[1], "line": frame[2]}


def collapsed(stacks: Mapping[Stack, float]) -> str:
    """Return one line a stack, its weight in whole microseconds; stacks of less than one are left out."""
    lines = ((";".join(stack), round(seconds * 1e6)) for stack, seconds in sorted(stacks.items()))
    return "".join(f"{stack} {weight}\n" for stack, weight in lines if weight)
