from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from asyncworker.tune.speedscope import collapsed, merged, speedscope
from bench.control.speedscope_format import complaints, weight

STACKS = st.dictionaries(
    st.lists(st.text(max_size=3), min_size=1, max_size=5).map(tuple), st.floats(0, 100), max_size=9
)


@given(STACKS)
def test_each_profile_is_a_file_as_the_format_asks(stacks: dict[tuple[str, ...], float]) -> None:
    document = speedscope(stacks, {}, "name")
    assert not list(complaints(document))
    assert abs(weight(document) - sum(stacks.values())) <= 1e-9 * sum(stacks.values())
    assert len(json.loads(document)["profiles"][0]["samples"]) == len(stacks)


def test_frames_have_their_places() -> None:
    document = json.loads(speedscope({("f", "[await]"): 1.5}, {"f": ("f", "a.py", 7)}, "name"))
    assert document["shared"]["frames"] == [{"name": "f", "file": "a.py", "line": 7}, {"name": "[await]"}]
    assert document["profiles"][0]["endValue"] == 1.5


def test_the_check_sees_what_is_wrong() -> None:
    good = json.loads(speedscope({("f", "g"): 1.0}, {}, "name"))
    for key, value in (("samples", [[0, 2]]), ("weights", [-1.0]), ("weights", []), ("unit", "hours")):
        bad = json.loads(json.dumps(good))
        bad["profiles"][0][key] = value
        assert list(complaints(json.dumps(bad).encode())), key
    assert list(complaints(json.dumps(good | {"$schema": "another"}).encode()))


def test_collapsed_stacks_weigh_whole_microseconds() -> None:
    assert collapsed({("a", "b"): 0.5, ("a",): 1e-9}) == "a;b 500000\n"


@given(st.lists(STACKS, max_size=4))
def test_files_are_put_into_one(several: list[dict[tuple[str, ...], float]]) -> None:
    document = merged([speedscope(stacks, {}, str(number)) for number, stacks in enumerate(several)])
    profiles = json.loads(document)["profiles"]
    assert [profile["name"] for profile in profiles] == [str(number) for number in range(len(several))]
    frames = [frame["name"] for frame in json.loads(document)["shared"]["frames"]]
    for stacks, profile in zip(several, profiles, strict=True):
        named = {tuple(frames[index] for index in stack) for stack in profile["samples"]}
        assert named == set(stacks)
