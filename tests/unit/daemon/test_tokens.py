from __future__ import annotations

import stat
from pathlib import Path

import pytest

from asyncworker.daemon.tokens import BYTES, Scope, Tokens, add_token, digest_of
from asyncworker.errors import SettingsError
from tests.support.command import call
from tests.support.daemon import tokens_of


def test_a_token_is_known_by_its_hash_alone(tmp_path: Path) -> None:
    path, made = tokens_of(tmp_path)
    text = path.read_text()
    assert not any(token in text for token in made.values())
    assert 8 * BYTES >= 128
    assert len(set(made.values())) == 3
    known = Tokens(str(path))
    assert len(known) == 3
    assert known.find(made["submit"]).scope is Scope.SUBMIT
    assert known.find(made["submit"] + "x") is None
    assert known.find(digest_of(made["admin"])) is None
    assert known.find("") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_that_was_taken_back_lets_nobody_in(tmp_path: Path) -> None:
    path, made = tokens_of(tmp_path)
    known = Tokens(str(path))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("admin")))
    assert known.find(made["admin"]) is None
    assert known.find(made["read"]) is not None
    late = add_token(str(path), "late", "admin")
    assert known.find(late).name == "late"


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("who admin 123\n")])
def test_who_cannot_be_known_is_not_let_in(tmp_path: Path, spoil) -> None:
    path, made = tokens_of(tmp_path)
    known = Tokens(str(path))
    spoil(path)
    assert known.find(made["admin"]) is None
    with pytest.raises(SettingsError):
        Tokens(str(path))


def test_others_may_not_add_a_token(tmp_path: Path) -> None:
    path, _ = tokens_of(tmp_path)
    path.chmod(0o666)
    with pytest.raises(SettingsError, match="chmod 600"):
        Tokens(str(path))


@pytest.mark.parametrize(
    ("name", "scope"), [("a b", "read"), ("", "read"), ("local", "admin"), ("x", "root"), ("admin\n", "read")]
)
def test_what_is_no_token_is_not_made(tmp_path: Path, name: str, scope: str) -> None:
    path = tmp_path / "tokens"
    with pytest.raises(SettingsError):
        add_token(str(path), name, scope)
    assert not path.exists()


def test_a_name_stands_for_one_token(tmp_path: Path) -> None:
    path, _ = tokens_of(tmp_path)
    with pytest.raises(SettingsError, match="already"):
        add_token(str(path), "reader", "read")


def test_the_command_shows_it_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    words = ("token", "add", "ops", "--scope", "admin")
    code, out, err = call(*words, "--http-tokens", "tokens", cwd=tmp_path)
    token = out.strip()
    assert code == 0
    assert Tokens(str(path)).find(token).scope is Scope.ADMIN
    assert token not in err
    assert call(*words, cwd=tmp_path, ASYNCWORKER_HTTP_TOKENS="tokens")[0] == 2  # there is one of this name
    assert call(*words, cwd=tmp_path)[0] == 2
