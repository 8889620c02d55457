from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import asyncworker
from asyncworker import settings as module
from asyncworker.errors import SettingsError
from asyncworker.settings import DEFAULTS, SETTINGS, Settings, environment, flag, load, shown, variable

CANARY = "hunter2"


@pytest.mark.parametrize("name", ["concurrency", "workers", "min_workers", "max_workers", "partition_size"])
def test_s24_a_number_from_the_environment_is_a_number(name: str) -> None:
    loaded = load({}, {variable(name): "10"})
    assert getattr(loaded.settings, name) == 10
    assert loaded.origins[name] == variable(name)


@pytest.mark.parametrize("given", ["ten", "-1", "", "1.5", "0x10", "\N{FULLWIDTH DIGIT ONE}", "9" * 30, "nan"])
@pytest.mark.parametrize(
    "name", ["concurrency", "workers", "min_workers", "max_workers", "queue_threshold", "metrics_port"]
)
def test_s24_what_is_no_number_is_refused_by_name(name: str, given: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{variable(name)} {given!r}: want a whole number from"):
        load({}, {variable(name): given})


def test_s21_each_setting_is_read_by_some_code() -> None:
    root = Path(asyncworker.__file__).parent
    read = {
        node.attr
        for file in root.rglob("*.py")
        if file != Path(module.__file__)
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] == "settings"
    }
    parts_of_dsn = {"database", "db_host", "db_name", "db_user", "db_password"}
    assert "dsn" in read
    assert set(SETTINGS) - read - parts_of_dsn == set()


@pytest.mark.parametrize("given", ["0", "101", "ten", "-1", "", "80%%", "nan"])
def test_s24_what_is_no_share_is_refused_by_name(given: str) -> None:
    with pytest.raises(SettingsError, match=rf"^ASYNCWORKER_CPU_THRESHOLD {given!r}: want a share"):
        load({}, {"ASYNCWORKER_CPU_THRESHOLD": given})


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("lease", "250ms", 0.25),
        ("lease", "30s", 30.0),
        ("lease", "10m", 600.0),
        ("lease", "1h", 3600.0),
        ("lease", "1.5", 1.5),
        ("grace_period", "0", 0.0),
        ("concurrency", "auto", "auto"),
        ("workers", "0", 0),
        ("cpu_threshold", "80", 80.0),
        ("memory_threshold", "85.5 %", 85.5),
        ("metrics_port", "0", 0),
        ("queues", "mail, reports", ("mail", "reports")),
        ("burst", "YES", True),
        ("burst", "0", False),
        ("max_failures", "5", 5),
        ("max_failures", "5%", 0.05),
        ("max_failures", "0.05", 0.05),
        ("max_failures", "1.0", 1.0),
        ("missing", "", ""),
        ("broker", "redis://u:p@h:1,i:2/0", "redis://u:p@h:1,i:2/0"),
        ("broker", "unix:///run/x.sock", "unix:///run/x.sock"),
        ("broker", "memory://", "memory://"),
        ("database", "postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
    ],
)
def test_a_value_is_read_the_same_from_each_source(name: str, given: str, value: object, tmp_path: Path) -> None:
    file = tmp_path / "asyncworker.toml"
    file.write_text(f"{name} = '{given}'\n")
    for flags, environ, origin in (
        ({name: given}, {}, flag(name)),
        ({}, {variable(name): given}, variable(name)),
        ({}, {}, str(file)),
    ):
        loaded = load(flags, environ, tmp_path)
        assert getattr(loaded.settings, name) == value
        assert loaded.origins[name] == origin


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("lease", "0"),
        ("lease", "10 parsecs"),
        ("lease", "2h"),
        ("lease", "inf"),
        ("burst", "perhaps"),
        ("burst", ""),
        ("queues", ""),
        ("queues", "a,,b"),
        ("queues", "mail:0"),
        ("queues", "mail:x"),
        ("log_level", "loud"),
        ("max_failures", "101%"),
        ("max_failures", "1.5"),
        ("broker", ""),
        ("broker", "localhost:6379"),
        ("broker", "redis://h:99999"),
        ("broker", "redis://h:port"),
        ("database", "mysql://h/d"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(name: str, given: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{flag(name)} {re.escape(repr(given))}: want ."):
        load({name: given}, {})


def test_an_unknown_broker_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"--broker 'reddis://h': unknown broker 'reddis'; did you mean 'redis'"):
        load({"broker": "reddis://h"}, {})


def test_the_nearer_source_wins_and_all_say_where_they_are_from(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("concurrency = 1\nlease = 1\ngrace_period = 1.5\nqueues = ['a', 'b']\nburst = true\n")
    environ = {"ASYNCWORKER_CONFIG": str(file), "ASYNCWORKER_CONCURRENCY": "2", "ASYNCWORKER_LEASE": "2"}
    loaded = load({"concurrency": "3"}, environ, tmp_path)
    assert loaded.settings == Settings(concurrency=3, lease=2.0, grace_period=1.5, queues=("a", "b"), burst=True)
    assert loaded.origins["concurrency"] == "--concurrency"
    assert loaded.origins["lease"] == "ASYNCWORKER_LEASE"
    assert loaded.origins["queues"] == str(file)
    assert loaded.origins["timeout"] == "default"


def test_a_file_named_by_a_flag_goes_before_the_variable_and_the_one_found_here(tmp_path: Path) -> None:
    for name, size in (("asyncworker.toml", 1), ("variable.toml", 2), ("flag.toml", 3)):
        (tmp_path / name).write_text(f"partition_size = {size}\n")
    environ = {"ASYNCWORKER_CONFIG": str(tmp_path / "variable.toml")}
    assert load({}, {}, tmp_path).settings.partition_size == 1
    assert load({}, environ, tmp_path).settings.partition_size == 2
    assert load({"config": str(tmp_path / "flag.toml")}, environ, tmp_path).settings.partition_size == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("brokr = 'memory://'", "unknown key 'brokr'; did you mean broker?"),
        ("zzz = 1", "unknown key 'zzz'; 'asyncworker settings --help' lists those that are known"),
        ("concurrency = 'ten'", "concurrency 'ten': want a whole number from 1 to 10000, or auto"),
        ("concurrency = true", "concurrency 'true': want a whole number"),
        ("[broker]\nurl = 'memory://'", "want a URL such as"),
        ("concurrency = ", "no TOML"),
        ("\xff", "no TOML"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_key(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "asyncworker.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=re.escape(said)):
        load({}, {}, tmp_path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read '.*nothing.toml': No such file"):
        load({"config": str(tmp_path / "nothing.toml")}, {})


def test_an_unknown_variable_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match="unknown variable ASYNCWORKER_CONCURENCY; did you mean ASYNCWORKER_CONC"):
        load({}, {"ASYNCWORKER_CONCURENCY": "1"})
    assert load({}, {"ASYNC": "1", "PATH": "x"}).settings == DEFAULTS


def test_no_color_is_honoured_as_others_do() -> None:
    assert load({}, {"NO_COLOR": "1"}).origins["no_color"] == "NO_COLOR"
    assert load({}, {"NO_COLOR": ""}).settings.no_color is False


def test_the_parts_of_a_database_make_its_url() -> None:
    assert DEFAULTS.dsn() is None
    assert Settings(db_name="shop").dsn() == "postgresql://localhost/shop"
    made = Settings(db_host="h:5433", db_name="a/b", db_user="u@x", db_password="p:/?#")
    assert made.dsn() == "postgresql://u%40x:p%3A%2F%3F%23@h:5433/a%2Fb"
    assert Settings(database="postgresql://given/db", db_name="other").dsn() == "postgresql://given/db"


def test_s22_no_secret_is_shown() -> None:
    settings = Settings(
        broker=f"redis://:{CANARY}@h", database=f"postgresql://u:{CANARY}@a,b/d", db_password=CANARY, db_user="u"
    )
    assert CANARY not in repr(settings)
    assert shown("db_password", settings.db_password) == "***"
    assert shown("broker", settings.broker) == "redis://:***@h"
    for name, given in (
        ("broker", f"redsi://u:{CANARY}@h"),
        ("broker", f"u:{CANARY}@h:1"),
        ("database", f"mysql://u:{CANARY}@h"),
    ):
        with pytest.raises(SettingsError) as caught:
            load({name: given}, {})
        assert CANARY not in str(caught.value)


def test_a_child_gets_the_same_settings_through_its_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ASYNCWORKER_METRICS_PORT", "9000")
    monkeypatch.setenv("MINE", "kept")
    settings = Settings(
        broker=f"redis://:{CANARY}@h", queues=("a", "b"), concurrency=3, lease=0.25, burst=True, max_failures=0.05
    )
    environ = environment(settings)
    assert environ["MINE"] == "kept"
    (tmp_path / "asyncworker.toml").write_text("concurrency = 99\nmetrics_port = 1\n")
    assert load({}, environ, tmp_path).settings == settings


def test_each_setting_has_a_line_of_doc() -> None:
    for name, setting in SETTINGS.items():
        assert re.fullmatch(r"[A-Z].{8,90}\.", setting.doc), name
