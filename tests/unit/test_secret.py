from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.secret import mask_text, mask_url

CANARY = "hunter2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("memory://", "memory://"),
        ("embedded:///var/lib/aw", "embedded:///var/lib/aw"),
        ("unix:///run/valkey.sock?db=1", "unix:///run/valkey.sock?db=1"),
        ("redis://:hunter2@h:1/0", "redis://:***@h:1/0"),
        ("rediss://u:hunter2@h", "rediss://u:***@h"),
        ("redis://u@h", "redis://u@h"),
        ("redis+sentinel://u:hunter2@a:1,b:2,[::1]:3/main", "redis+sentinel://u:***@a:1,b:2,[::1]:3/main"),
        ("postgresql://u:hunter2@a,b:5433/db?dataset=x@y", "postgresql://u:***@a,b:5433/db?dataset=x@y"),
        ("postgresql://a/db?user=u&password=hunter2&key=id", "postgresql://a/db?user=u&password=***&key=id"),
        ("postgresql://a/db?sslpassword=hunter2#x", "postgresql://a/db?sslpassword=***#x"),
        ("redis://u:p/hunter2@h/0", "redis://u:***@h/0"),
        ("redis://u:1/hunter2@h/0", "redis://u:***@h/0"),
        ("redis://u:p@hunter2@h/0", "redis://u:***@h/0"),
        ("redis://u:p?hunter2@h/0", "redis://u:***@h/0"),
        ("redis://:1?hunter2@h/0", "redis://:***@h/0"),
        ("redis://:p#hunter2@h/0", "redis://:***@h/0"),
        ("u:hunter2@h:5432/db", "u:***@h:5432/db"),
        ("host=a password='hunter2' user=u", "host=a password=*** user=u"),
        ("", ""),
    ],
)
def test_a_password_in_a_url_is_hidden(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_a_text_with_urls_in_it_is_masked() -> None:
    text = f"cannot reach 'redis://u:{CANARY}@h:1/0' nor postgresql://h/d?password={CANARY} PGPASSWORD={CANARY} x"
    shown = mask_text(text)
    assert CANARY not in shown
    assert shown == "cannot reach 'redis://u:***@h:1/0' nor postgresql://h/d?password=*** PGPASSWORD=*** x"


def test_a_dict_that_was_printed_is_masked() -> None:
    assert mask_text(repr({"user": "u", "password": CANARY, "port": 1})) == "{'user': 'u', 'password': ***, 'port': 1}"
    assert mask_text(f'{{"api_key": "{CANARY}"}}') == '{"api_key": ***}'
    assert mask_text("unexpected token: x") == "unexpected token: x"


@pytest.mark.parametrize("text", ["a", "password", "a:", "password=", "a://b@", "-", "://"])
def test_a_long_text_costs_linear_time(text: str) -> None:
    long = text * (400_000 // len(text))
    began = time.process_time()
    mask_text(long)
    assert time.process_time() - began < 2


@given(
    st.text("ab:@/?#[]%", max_size=6),
    st.text("cd:@/?#[]%", max_size=6),
    st.sampled_from(["h", "h:1", "h:1,i:2", "[::1]:5"]),
    st.sampled_from(["", "/0", "/db?table=t&key=id", "?x=1"]),
)
def test_no_password_however_raw_is_shown(head: str, tail: str, hosts: str, rest: str) -> None:
    assert CANARY not in mask_url(f"redis://user:{head}{CANARY}{tail}@{hosts}{rest}")
