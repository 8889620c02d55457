"""A browser, and the fleets that it looks at; both live as long as the tests of one module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser import load, shop
from tests.browser.house import FOLDER, House, opened
from tests.browser.screen import Screen, browsing, screens

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.leaks)  # the browser and its processes outlive a test
            item.add_marker(pytest.mark.timeout(300))
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a browser; its driver holds this thread's event loop, so it is gone before other modules' tests."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with browsing(CHROMIUM) as browser:
        yield browser


@pytest.fixture
def screen(browser: Browser) -> Iterator[Screen]:
    """Give a window in which nothing may be complained of."""
    with screens(browser) as screen:
        yield screen
        assert screen.complaints == []


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with opened(load.shop) as house:
        working = house.begin(load.trickle(house))
        yield house
        working.cancel()


@pytest.fixture(scope="module")
def hostile_house() -> Iterator[House]:
    with opened(load.attack, shop.HOSTILE[:2]) as house:
        yield house


@pytest.fixture
def album() -> Path | None:
    """Return the folder for screenshots, where somebody will look at them: each takes half a second."""
    if named := os.environ.get(FOLDER):
        Path(named).mkdir(parents=True, exist_ok=True)
        return Path(named)
    return None
