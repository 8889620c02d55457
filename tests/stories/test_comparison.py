"""The tables that name a test for each promise and each feature: those tests are there, and no row is without one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[`(tests/[\w/]+\.py)::([\w:]+)`\]\(([\w./]+)\)")
PROMISES, FEATURES = ROOT / "tests/faults/README.md", ROOT / "tests/COMPARISON.md"
COLUMNS = 8


@cache
def named_in(path: Path) -> set[str]:
    """Return the names of the tests in a file, those in classes as ``Class::test``."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        within = node.body if isinstance(node, ast.ClassDef) else [node]
        for one in within:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_"):
                found.add(f"{node.name}::{one.name}" if isinstance(node, ast.ClassDef) else one.name)
    return found


def rows(file: Path, begin: str) -> list[list[str]]:
    """Return the cells of all rows of tables whose first cell matches *begin*."""
    lines = [line for line in file.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if re.fullmatch(begin, row[0]) and not set(row[0]) <= set("-: ")]


@pytest.mark.parametrize("file", [PROMISES, FEATURES], ids=lambda file: file.stem)
def test_each_test_that_is_named_is_there(file: Path) -> None:
    links = LINK.findall(file.read_text())
    assert links
    for path, name, target in links:
        assert (file.parent / target).resolve() == ROOT / path, target
        assert name in named_in(ROOT / path), f"{path}::{name}"
    assert len(re.findall(r"`tests/[^`]+::", file.read_text())) == len(links), "one is named in a way nobody follows"
    assert all((ROOT / path).is_file() for path in re.findall(r"`(tests/[\w/]+\.py)`", file.read_text()))


def test_each_promise_has_a_test() -> None:
    found = {row[0]: LINK.findall(row[-1]) for row in rows(PROMISES, r"P\d+")}
    assert list(found) == [f"P{number}" for number in range(1, 13)]
    assert all(found.values())


def test_each_feature_that_somebody_has_is_shown_by_a_test() -> None:
    found = rows(FEATURES, r"\S.*")
    assert len(found) > 30
    for row in found:
        feature, *others, ours = row
        assert len(others) == COLUMNS, feature
        assert LINK.search(ours), f"{feature}: no test shows it"


def test_p12_what_is_not_promised_is_said() -> None:
    said = " ".join(PROMISES.read_text().split())
    begin = said.index("**Not promised**")
    for words in ("exactly once", "order across priorities", "redelivery", "asynchronously replicated", "the outbox"):
        assert words in said[begin:], words
    assert "**at least once**" in (ROOT / "README.md").read_text()
