from __future__ import annotations

from pathlib import Path

import pytest

from asyncworker.cli import demo
from asyncworker.errors import SettingsError


def test_without_the_flights_it_says_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (demo.folder() / demo.FLIGHTS).is_file()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "site-packages" / "asyncworker" / "cli" / "demo.py"))
    with pytest.raises(SettingsError, match="it comes with the source tree, so run the demo in a clone of that"):
        demo.folder()
