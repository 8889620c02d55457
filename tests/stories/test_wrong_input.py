"""What a user may get wrong: one line that says what and how to mend it, the right exit code, and no job left behind."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from asyncworker.queue.brokers.redis import RedisBroker
from tests.support.command import call

FIELD = ("-p", '{"field": "text"}')
RULES = '{"validation_rules": {"type_validations": {"age": "integer"}}}'
COUNT = ("rows.jsonl", "-f", "word_count", *FIELD)

WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "missing file": (("nothing.csv", *COUNT[1:]), "no file "),
    "directory": (("folder.csv", *COUNT[1:]), "folder.csv"),
    "file of an unknown kind": (("rows.xls", *COUNT[1:]), "unknown source 'xls'"),
    "unknown column": (("rows.csv", "-f", "word_count", "-p", '{"field": "txet"}'), "'txet'; did you mean 'text'?"),
    "dataset without a database": (("sales", *COUNT[1:]), "if it is a dataset's id, name its database"),
    "unknown scheme": (("mysql://h/d?table=t", *COUNT[1:]), "unknown source 'mysql'"),
    "no function": (("rows.jsonl",), "which function? --function NAME"),
    "unknown function": (("rows.jsonl", "-f", "wordcount"), "unknown function 'wordcount'; did you mean 'word_count'?"),
    "unknown option of a source": (("rows.jsonl?mising=x", *COUNT[1:]), "mising"),
    "parameter of the wrong type": (("rows.jsonl", "-f", "word_count", "-p", '{"field": 3}'), "field must be text"),
    "unknown parameter": (("rows.jsonl", "-f", "word_count", "-p", '{"feild": "x"}'), "did you mean 'field'?"),
    "missing parameter": (("rows.jsonl", "-f", "data_validation"), "validation_rules"),
    "unknown type name": (("rows.jsonl", "-f", "data_validation", "-p", RULES), "age"),
    "parameters that are no JSON": ((*COUNT[:3], "-p", '{"field": '), "--params: no JSON object"),
    "parameters that are a list": ((*COUNT[:3], "-p", "list.json"), "--params 'list.json': no JSON object"),
    "missing parameter file": ((*COUNT[:3], "-p", "rulez.json"), "neither a JSON object nor a file that can be read"),
    "unknown flag": ((*COUNT, "--functon", "x"), "No such option '--functon'"),
    "flag without a value": ((*COUNT, "--to"), "'--to' requires an argument"),
    "flag of the wrong type": ((*COUNT, "--partition-size", "many"), "--partition-size 'many': want a whole number"),
    "unknown sink": ((*COUNT, "--to", "out.xls"), "unknown sink 'xls'"),
    "bad broker": ((*COUNT, "--broker", "localhost:6379"), "--broker 'localhost:6379': want a URL such as redis://"),
    "unknown broker": ((*COUNT, "--broker", "rediss3://h"), "unknown broker 'rediss3'; did you mean 'rediss'?"),
    "bad port": ((*COUNT, "--broker", "redis://h:65536"), "--broker 'redis://h:65536': want a URL"),
    "bad database": ((*COUNT, "--database", "mysql://u:hunter2@h/d"), "--database 'mysql://u:***@h/d': want a URL"),
    "missing settings file": ((*COUNT, "--config", "nothing.toml"), "cannot read 'nothing.toml': No such file"),
    "no such app": ((*COUNT, "--app", "nix_x:engine"), "there is no module 'nix_x'"),
    "second source is missing": ((*COUNT, "more.jsonl"), "no file "),
    "second source of an unknown kind": ((*COUNT, "more.xls"), "unknown source 'xls'"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"text": "a b a"}\n{"text": \n{"text": "c"}\n')
    (tmp_path / "rows.csv").write_text("text,age\na b,3\n")
    (tmp_path / "rows.xls").write_text("x")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "folder.csv").mkdir()
    return tmp_path


@pytest.mark.parametrize("case", WRONG)
def test_it_is_said_in_one_line_and_no_job_is_left(
    case: str, place: Path, redis_url: str, namespace: str, immortal_keys: Callable[..., list[str]]
) -> None:
    words, said = WRONG[case]
    broker = () if "--broker" in words else ("--broker", redis_url)
    code, out, err = call("submit", "--namespace", namespace, *broker, *words, cwd=place)
    assert (code, out) == (2, "")
    assert said in err
    _one_line(err)
    assert immortal_keys(redis_url, f"*{namespace}*") == []


@pytest.mark.parametrize("case", ["missing file", "unknown function", "parameter of the wrong type"])
def test_an_embedded_broker_makes_no_difference(case: str, place: Path) -> None:
    words, said = WRONG[case]
    code, out, err = call("run", *words, "--workers", "1", cwd=place)
    assert (code, out) == (2, "")
    assert said in err
    _one_line(err)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ASYNCWORKER_BROKR": "x"}, "unknown variable ASYNCWORKER_BROKR; did you mean ASYNCWORKER_BROKER?"),
        ({"ASYNCWORKER_CONCURRENCY": "ten"}, "ASYNCWORKER_CONCURRENCY 'ten': want a whole number"),
        ({"ASYNCWORKER_WORKERS": "-1"}, "ASYNCWORKER_WORKERS '-1': want a whole number"),
        ({"ASYNCWORKER_WORKERS": ""}, "ASYNCWORKER_WORKERS '': want a whole number"),
        ({"ASYNCWORKER_LEASE": "10 s "}, "ASYNCWORKER_LEASE '10 s ': want a duration"),
    ],
)
def test_s24_a_bad_variable_is_named(variables: dict[str, str], said: str, place: Path) -> None:
    code, out, err = call("run", *COUNT, "--workers", "0", cwd=place, **variables)
    assert (code, out) == (2, "")
    assert said in err
    _one_line(err)


def test_a_server_that_is_down_is_said_and_is_no_mistake_of_the_command(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RedisBroker.__init__.__kwdefaults__, "patience", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, out, err = call("submit", *COUNT, "--broker", f"redis://u:hunter2@127.0.0.1:{port}", cwd=place)
    assert (code, out) == (1, "")
    assert f"127.0.0.1:{port} does not answer" in err
    _one_line(err)


def test_an_empty_file_is_no_mistake(place: Path) -> None:
    (place / "empty.jsonl").touch()
    code, out, err = call("run", "empty.jsonl", *COUNT[1:], "--workers", "0", "--json", cwd=place)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["total_processed"] == 0
    assert summary["final_result"] == {"total": 0, "distinct": 0, "words": []}


def test_a_bad_line_is_a_failed_item_with_its_number(place: Path) -> None:
    code, out, err = call("run", *COUNT, "--workers", "0", "--json", cwd=place)
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["total_processed"], summary["total_failed"]) == (3, 1)
    (failure,) = summary["failures"]
    assert failure["key"] == 2
    assert "JSON" in failure["error_text"]
    assert summary["final_result"]["total"] == 4


def test_when_too_many_items_fail_the_job_fails_and_tells_what_did_not(place: Path) -> None:
    code, out, err = call("run", *COUNT, "--workers", "0", "--max-failures", "10%", "--json", cwd=place)
    assert code == 1
    assert json.loads(out)["final_result"]["total"] == 4
    assert "items failed, more than 10" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.fixture(scope="module")
async def shop_dsn(postgres_dsn: str) -> str:
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("CREATE TABLE orders (id bigint PRIMARY KEY, text text)")
    await connection.execute(
        "CREATE TABLE dataset_items (dataset_id text, item_index bigint, data jsonb, PRIMARY KEY (dataset_id, item_index))"
    )
    await connection.close()
    return postgres_dsn


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("?dataset=nothing", "nothing"),
        ("?table=public.nothing&key=id", "nothing"),
        ("?table=public.orders&key=nothing", "nothing"),
        ("?table=public.orders;drop&key=id", "orders;drop"),
        ("?tabel=public.orders", "must end in ?dataset=NAME or ?table=NAME&key=COLUMN"),
    ],
)
def test_what_is_not_in_the_database_is_said(
    source: str,
    said: str,
    place: Path,
    shop_dsn: str,
    redis_url: str,
    namespace: str,
    immortal_keys: Callable[..., list[str]],
) -> None:
    broker = ("--broker", redis_url, "--namespace", namespace)
    code, out, err = call("submit", f"{shop_dsn}{source}", *COUNT[1:], *broker, cwd=place)
    assert (code, out) == (2, ""), err
    assert said in err
    _one_line(err)
    assert immortal_keys(redis_url, f"*{namespace}*") == []


def test_a_dataset_by_its_id_that_does_not_exist_is_said(place: Path, shop_dsn: str) -> None:
    code, out, err = call("run", "sales", *COUNT[1:], "--database", shop_dsn, "--workers", "0", cwd=place)
    assert (code, out) == (2, ""), err
    assert "sales" in err
    _one_line(err)


def _one_line(err: str) -> None:
    assert err.startswith("asyncworker: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert "hunter2" not in err
