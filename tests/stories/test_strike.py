"""``asyncworker strike``: what nobody is to start, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command import call


def test_struck_listed_and_lifted(redis_url: str, namespace: str, tmp_path: Path) -> None:
    def said(*words: str) -> tuple[int, str, str]:
        return call("strike", *words, "--broker", redis_url, "--namespace", namespace, cwd=tmp_path)

    assert said("add", "mail")[0] == 0
    assert said("add", "mail", "tenant=acme", "n=5")[0] == 0
    code, out, _ = said("ls", "--json")
    assert (code, json.loads(out)) == (
        0,
        [{"task": "mail", "arguments": {}}, {"task": "mail", "arguments": {"n": 5, "tenant": "acme"}}],
    )
    assert "acme" in said("ls")[1]
    assert said("rm", "mail", "n=5", "tenant=acme")[0] == 0
    assert said("rm", "mail", "n=5", "tenant=acme")[0] == 2
    assert json.loads(said("rm", "mail", "--json")[1]) == {"strike": "mail", "struck": False}
    assert said("ls", "--json")[1].strip() == "[]"
    code, _, err = said("add", "mail", "acme")
    assert code == 2
    assert "NAME=VALUE" in err
