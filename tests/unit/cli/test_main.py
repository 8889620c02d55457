from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from asyncworker import cli
from asyncworker.cli import COMMANDS, main, say_why
from asyncworker.errors import (
    BadParameters,
    BrokerDown,
    EmptyDataset,
    JobCancelled,
    JobFailed,
    JobNotFound,
    QueueFull,
    ResultExpired,
    SettingsError,
    SourceError,
    TaskFailed,
    UnknownName,
)
from asyncworker.settings import SETTINGS, flag, variable
from tests.support.command import run

CANARY = "hunter2"


@pytest.fixture(autouse=True)
def _quiet_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_s33_each_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"asyncworker {name}" in told.partition("Examples:")[2]
    command = cli.commands.get_command(click.Context(cli.commands), name)
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option) and option.name in SETTINGS:
            assert variable(option.name) in (option.help or "")
            assert flag(option.name) in option.opts


@pytest.mark.parametrize("name", COMMANDS)
def test_what_stands_without_a_flag_is_no_setting_of_that_name(name: str) -> None:
    """A command would be given the setting instead; but for ``app``, which may be said either way."""
    command = cli.commands.get_command(click.Context(cli.commands), name)
    assert command is not None
    verbs = command.commands.values() if isinstance(command, click.Group) else [command]
    plain = {option.name for verb in verbs for option in verb.params if isinstance(option, click.Argument)}
    assert plain & SETTINGS.keys() <= {"app"}


def test_without_a_command_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in COMMANDS)


def test_the_list_of_commands_loads_none_of_them() -> None:
    code = (
        "import sys; from asyncworker.cli import main; main(['--help']);"
        "print([n for n in sys.modules if n.startswith('asyncworker.cli.') or n in ('rich', 'redis', 'asyncio')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "['asyncworker.cli.line']"


def test_a_command_that_draws_nothing_does_not_load_rich() -> None:
    code = "import sys; from asyncworker.cli import main; main(['functions', '--json']); print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["setings"], "there is no command 'setings'; did you mean 'settings'?"),
        (["zzz"], "there is no command 'zzz'; there are demo, run,"),
        (["--versoin"], "No such option '--versoin'"),
        (["settings", "--log-formt", "x"], "No such option '--log-formt'. Did you mean '--log-format'?"),
        (["settings", "--broker"], "'--broker' requires an argument"),
        (["settings", "surplus"], "unexpected extra argument (surplus)"),
        (["status"], "Missing argument 'JOB'"),
        (["settings", "--lease", "soon"], "--lease 'soon': want a duration"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("x"), 2),
        (UnknownName("task", "x"), 2),
        (BadParameters("x"), 2),
        (SourceError("x"), 2),
        (EmptyDataset("x"), 2),
        (JobNotFound("x"), 2),
        (BrokerDown("x"), 1),
        (QueueFull("x"), 1),
        (TaskFailed("x"), 1),
        (JobFailed("x"), 1),
        (JobCancelled("x"), 1),
        (ResultExpired("x"), 1),
        (ExceptionGroup("x", [ExceptionGroup("y", [SettingsError("x")])]), 2),
        (RuntimeError("x"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert say_why(error, debug=False) == code
    assert capsys.readouterr().err.count("\n") == 1


def broken(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def body(*args: Any, **given: Any) -> None:
        raise error

    command = cli.commands.get_command(click.Context(cli.commands), "settings")
    assert command is not None
    monkeypatch.setattr(command, "callback", body)


def test_an_unexpected_error_is_one_line_until_its_traceback_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(monkeypatch, RuntimeError(f"redis://:{CANARY}@h\n\x1b[31mred"))
    assert main(["settings"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("asyncworker: internal error: RuntimeError: redis://:***@h\\n\\x1b[31mred (--debug shows")
    assert main(["settings", "--debug"]) == 1
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    monkeypatch.setenv("ASYNCWORKER_DEBUG", "1")
    assert main(["settings"]) == 1
    said += capsys.readouterr().err
    assert said.count("Traceback (most recent call last)") == 2
    assert CANARY not in said


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken(monkeypatch, KeyboardInterrupt())
    assert main(["settings"]) == 130
    assert capsys.readouterr().out == ""


def test_settings_say_where_each_value_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("asyncworker.toml").write_text(f"lease = '5s'\ndb_password = '{CANARY}'\n")
    monkeypatch.setenv("ASYNCWORKER_BROKER", f"redis://:{CANARY}@h")
    assert main(["settings", "--concurrency", "7", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err == ""
    assert told.keys() == SETTINGS.keys()
    assert told["concurrency"] | {"doc": ""} == {"value": 7, "from": "--concurrency", "doc": ""}
    assert told["broker"] | {"doc": ""} == {"value": "redis://:***@h", "from": "ASYNCWORKER_BROKER", "doc": ""}
    assert told["lease"] | {"doc": ""} == {"value": 5.0, "from": "asyncworker.toml", "doc": ""}
    assert told["db_password"]["value"] == "***"
    assert main(["settings"]) == 0
    out = capsys.readouterr().out
    assert "redis://:***@h" in out
    assert CANARY not in out


def test_whoever_reads_our_output_may_have_enough(tmp_path: Path) -> None:
    words = f"'{sys.executable}' -P -m asyncworker settings | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("setting")
    assert done.stderr == ""


def test_python_m_is_the_command(tmp_path: Path) -> None:
    code, out, err = run("--version", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith("asyncworker ")


def test_ctrl_c_while_it_is_loaded_ends_it_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", "asyncworker", "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_plain_worker_does_without_heavy_libraries():
    code = (
        "import sys, asyncworker.cli.worker; from asyncworker import Engine; Engine('redis://127.0.0.1:1').broker;"
        "print({'redis', 'prometheus_client', 'aiohttp', 'asyncpg', 'rich', 'pyarrow'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "set()\n"
