"""`asyncworker export grafana` and `alerts`: from a wheel as from the tree where it is worked on."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from asyncworker.daemon import grafana
from asyncworker.errors import SettingsError
from tests.support.command import call
from tests.support.grafana import PLACE, promtool, rules


def test_all_of_it_travels(tmp_path: Path) -> None:
    there = tmp_path / "there"
    for _ in range(2):  # the second time over the first
        code, out, err = call("export", "grafana", str(there), cwd=tmp_path)
        assert (code, out) == (0, "")
        assert "README.md there says how" in err
    made = {path.relative_to(there) for path in there.rglob("*") if path.is_file()}
    assert {path.parts[0] for path in made} == set(grafana.TRAVELLING)
    for path in made:
        assert (there / path).read_bytes() == (PLACE / path).read_bytes()


def test_alerts_are_one_file_with_what_they_ask_for(tmp_path: Path) -> None:
    code, out, _ = call("export", "alerts", cwd=tmp_path)
    assert code == 0
    assert call("export", "alerts", "rules.yaml", cwd=tmp_path) == (0, "", "")
    assert (tmp_path / "rules.yaml").read_text("utf-8") == out
    assert out.count("- alert: ") == len(rules("alerts"))
    assert out.count("- record: ") == len(rules("recording"))
    promtool("check", "rules", str(tmp_path / "rules.yaml"))


@pytest.mark.parametrize("verb", ["grafana", "alerts"])
def test_where_nothing_can_be_written_it_says_so(tmp_path: Path, verb: str) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = call("export", verb, "file/there", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("asyncworker: file/there cannot be written: ")


def test_a_wheel_has_the_same_files() -> None:
    packed = tomllib.loads((PLACE.parent / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert packed["wheel"]["force-include"] == {
        f"grafana/{name}": f"asyncworker/grafana_files/{name}" for name in grafana.TRAVELLING
    }


def test_what_a_wheel_brought_goes_before_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert grafana.place() == PLACE
    monkeypatch.setattr(grafana, "PACKED", tmp_path)
    assert grafana.place() == tmp_path
    monkeypatch.setattr(grafana, "PACKED", tmp_path / "none")
    monkeypatch.setattr(grafana, "SOURCE", tmp_path / "none")
    with pytest.raises(SettingsError, match="install asyncworker anew"):
        grafana.place()
