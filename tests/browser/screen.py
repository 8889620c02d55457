"""A browser's window, and all that it complains of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, sync_playwright

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
PATIENCE_MS = 20_000
OVERFLOWING = """() => document.documentElement.scrollWidth > innerWidth
  ? [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
      .slice(0, 5).map((one) => one.outerHTML.slice(0, 200)).concat(document.documentElement.scrollWidth)
  : []"""
SERIOUS = {"serious", "critical"}


class Screen:
    """One page of a browser.

    Attributes:
        complaints: messages in the console (violations of the policy among them), errors, and refused requests.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.answered: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        self.complaints.append(f"{self.page.url}: {message.type}: {message.text}")

    def _on_response(self, response: Response) -> None:
        self.answered.append(f"{response.request.method} {response.url}")
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    def show(self, url: str, *, width: int = 1280, theme: str = "light") -> None:
        """Go to a page, and wait until all of it is there."""
        self.resize(width, theme)
        self.page.goto(url)
        self.page.wait_for_function("document.documentElement.classList.contains('ready') && window.htmx?.version")

    def overflowing(self) -> list[Any]:
        """Return what is wider than the window."""
        return self.page.evaluate(OVERFLOWING)

    def resize(self, width: int, theme: str) -> None:
        """Change the window and the system's theme under a page."""
        self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        self.page.set_viewport_size({"width": width, "height": 900})

    def barriers(self, *rules: str) -> list[str]:
        """Return what axe-core finds serious or critical (by all its rules); of long tables the first rows stand for all."""
        options = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else None
        found = Axe().run(self.page, {"exclude": [["tbody tr:nth-child(n+4)"]]}, options).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes']][:3]}"
            for one in found
            if one["impact"] in SERIOUS
        ]

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, wanted: Callable[[str], bool], *, most: int = 400) -> str:
        """Walk by the tabulator until what has the focus is wanted; returns its text or label."""
        for _ in range(most):
            self.press("Tab")
            here = self.page.evaluate(
                "(e => e.getAttribute('aria-label') || e.innerText || e.name || '')(document.activeElement)"
            )
            if wanted(" ".join(here.split())):
                return here
        raise AssertionError("no way leads there by the keyboard")

    def done(self, text: str) -> None:
        """Wait until the page says that this was done."""
        self.page.locator("#done", has_text=text).wait_for()


@contextmanager
def browsing(executable: str) -> Iterator[Browser]:
    """Give a browser."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def screens(browser: Browser) -> Iterator[Screen]:
    """Give a window that remembers nothing."""
    with browser.new_context(timezone_id="UTC") as context:
        screen = Screen(context.new_page())
        yield screen
