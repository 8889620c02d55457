from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters, DecodeError
from asyncworker.queue import codec
from asyncworker.queue.codec import Ids, base32, born_ms, is_id, pack, pack_call, unpack, unpack_call, unpack_record
from asyncworker.queue.job import Record, child_id, parent_of

DECODERS = (unpack, unpack_call, unpack_record)
quick = settings(max_examples=50, deadline=None)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


def decoded(data: bytes) -> list[object]:
    """Return what each decoder makes of *data*; anything but a value or `DecodeError` fails the test."""
    values = []
    for decode in DECODERS:
        try:
            values.append(decode(data))
        except DecodeError:
            values.append(DecodeError)
    return values


class TestIds:
    def test_form(self):
        before = int(time.time() * 1000)
        made = Ids(shard=5)()
        assert is_id(made)
        assert len(made) == 26
        assert before <= born_ms(made) <= time.time() * 1000
        assert made[9:12] == base32(5, 3)

    def test_they_sort_by_age(self):
        new_id = Ids()
        made = [new_id() for _ in range(1024)]
        assert made == sorted(made)
        assert {made_id[:-2] for made_id in made} == {made[0][:-2]}, "a block shares all but its counter"
        assert new_id()[:-2] != made[0][:-2]

    def test_a_block_is_given_up_after_a_second(self, monkeypatch: pytest.MonkeyPatch):
        new_id = Ids()
        first = new_id()
        later = time.monotonic() + 1.1
        monkeypatch.setattr(codec.time, "monotonic", lambda: later)
        assert new_id()[:-2] != first[:-2]

    def test_s05_a_thousand_makers_at_once(self):
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: [new_id() for new_id in [Ids()] for _ in range(20)], range(1000)))
        assert len({job_id for ids in made for job_id in ids}) == 20_000

    def test_s05_threads_share_a_maker(self):
        new_id = Ids()
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: [new_id() for _ in range(500)], range(40)))
        assert len({job_id for ids in made for job_id in ids}) == 20_000

    def test_s05_a_forked_child_begins_a_block_of_its_own(self):
        code = (
            "import os\n"
            "from asyncworker.queue.codec import Ids\n"
            "new_id = Ids()\n"
            "first = new_id()\n"
            "child = os.fork()\n"
            "print(new_id()[:-2] == first[:-2], flush=True)\n"
            "child and os.waitpid(child, 0)\n"
        )
        env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
        assert sorted(said.stdout.split()) == ["False", "True"]

    def test_s04_ids_are_stable_across_hash_seeds(self):
        code = (
            "import hashlib, sys\n"
            "from asyncworker.queue.job import child_id\n"
            "ids = [child_id(f'dataset_{n % 7:018d}', n) for n in range(100_000)]\n"
            "print(len(set(ids)), hashlib.sha256(' '.join(ids).encode()).hexdigest())\n"
        )
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                text=True,
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
            for seed in ("0", "1", "4242")
        ]
        told = {run.communicate(timeout=50)[0] for run in runs}
        assert len(told) == 1
        assert told.pop().startswith("100000 ")

    @quick
    @given(st.integers(0, 2**31))
    def test_children(self, part: int):
        parent = Ids()()
        child = child_id(parent, part)
        assert is_id(child)
        assert (parent_of(child), parent_of(parent)) == (parent, None)
        assert born_ms(child) == born_ms(parent)

    def test_what_is_no_id(self):
        good = Ids()()
        for more in ("0", ".", ".x", ".-1", ".1.1", ".\u0663", ".1 ", "\n", "\x00"):
            assert not is_id(good + more)
        for bad in ("", ".1", good[:-1], good[1:] + "u", good.upper(), good.replace(good[0], "é"), "\u0663" * 26):
            assert not is_id(bad)

    @quick
    @given(st.integers(0, 2**45 - 1), st.integers(0, 2**45 - 1))
    def test_base32_keeps_the_order(self, one: int, other: int):
        assert (base32(one, 9) < base32(other, 9)) == (one < other)


class TestCodec:
    @quick
    @given(plain)
    def test_values_return(self, value: object):
        assert unpack(pack(value)) == value

    @quick
    @given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(plain), st.dictionaries(st.text("abc"), plain))
    def test_calls_return(self, task: str, args: list[object], kwargs: dict[str, object]):
        assert unpack_call(pack_call(task, args, kwargs)) == (task, args, kwargs)
        assert unpack_call(pack_call(task, tuple(args), kwargs)) == (task, args, kwargs)

    @quick
    @given(plain, st.integers(0, 99), st.floats(0, 1e10), st.text("abc \n"))
    def test_records_return(self, value: object, attempt: int, time_s: float, text: str):
        record = Record("t", attempt, time_s, time_s, value, text, text, text, value)
        assert unpack_record(pack(record)) == record

    def test_an_empty_record(self):
        assert unpack_record(b"") == Record()
        assert unpack_record(pack(Record())) == Record()
        assert unpack_record(pack(["task", 2])) == Record(task="task", attempt=2), "written by an older worker"
        assert unpack_record(pack([*([""] + [0] * 3), 5, "", "", "", None, "more"])).value == 5, "or by a newer one"

    def test_dates_return(self):
        now = datetime.now(UTC)
        assert unpack(pack([now])) == [now]

    @pytest.mark.parametrize(
        "value",
        [object(), {object(): 1}, 2**64, -(2**63) - 1, "\ud800", [lambda: 0], {1: {2: print}}],
        ids=["object", "key", "large", "small", "surrogate", "lambda", "function"],
    )
    def test_s50_what_cannot_travel_is_said_at_once(self, value: object):
        with pytest.raises(BadParameters, match="cannot travel"):
            pack(value)
        with pytest.raises(BadParameters, match="'fetch' cannot travel"):
            pack_call("fetch", [value], {})

    def test_what_holds_itself_cannot_travel(self):
        loop: list[object] = []
        loop.append(loop)
        deep: list[object] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (loop, deep):
            with pytest.raises(BadParameters):
                pack(value)
            with pytest.raises(BadParameters):
                pack_call("fetch", [value], {})


class TestAnyBytes:
    @quick
    @given(st.binary(max_size=200))
    def test_e1_a_value_or_decode_error(self, data: bytes):
        decoded(data)

    @quick
    @given(plain, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
    def test_damaged_messages(self, value: object, blows: list[tuple[int, int]]):
        data = bytearray(pack_call("task", [value], {"key": value}))
        for place, byte in blows:
            data[place % len(data)] = byte
        decoded(bytes(data))

    @quick
    @given(plain, st.integers(0, 10_000))
    def test_cut_messages(self, value: object, place: int):
        data = pack_call("task", [value], {})
        assert decoded(data[: place % len(data)])[:2] == [DecodeError, DecodeError]

    @pytest.mark.parametrize(
        "data",
        [
            b"\x91" * 100_000 + b"\xc0",
            b"\x81\xa1a" * 100_000 + b"\xc0",
            b"\x93\xa1t" + b"\x91" * 100_000 + b"\xc0\x80",
            b"\x95\xa1t\x01\x00\x00" + b"\x91" * 100_000 + b"\xc0",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\x05",
            b"\xdd\x0f\xff\xff\xff" * 900,
            b"\xdd\x00\x01\x86\xa0" * 900 + b"\xc0" * 100_000,
            b"\x95\xa1t\x01\x00\x00" + b"\xdd\x00\x01\x86\xa0" * 900 + b"\xc0" * 100_000,
        ],
        ids=lambda data: data[:6].hex(),
    )
    def test_e1_bombs_cost_little(self, data: bytes):
        tracemalloc.start()
        began = time.perf_counter()
        try:
            assert decoded(data) == [DecodeError] * 3
            assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        finally:
            tracemalloc.stop()
        assert time.perf_counter() - began < 1

    @pytest.mark.parametrize(
        "value",
        [None, [], {}, "abc", ["t", [], {}, 1], ["t", {}, {}], [b"t", [], {}], ["t", [], {1: 2}], ["t", []], {"t": 1}],
        ids=repr,
    )
    def test_what_is_no_call(self, value: object):
        with pytest.raises(DecodeError, match="the payload is no call"):
            unpack_call(pack(value))

    def test_s50_e1_pickles_are_refused_and_not_run(self, tmp_path: Path):
        canary = tmp_path / "canary"

        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(canary),)

        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            data = pickle.dumps(Bomb(), protocol)
            assert decoded(data) == [DecodeError] * 3
            assert decoded(pack(data))[1:] == [DecodeError] * 2
            assert unpack(pack(data)) == data
        assert not canary.exists()
