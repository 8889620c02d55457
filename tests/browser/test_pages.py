"""Each page of the dashboard on real load: how it looks, what it says to those who cannot see it, what it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncworker.daemon.actions import Actions
from tests.browser import load
from tests.browser.house import House
from tests.browser.screen import Screen

WIDTHS = (360, 768, 1280)
THEMES = ("light", "dark")
PAGES = {
    "queues": "/queues",
    "jobs": "/jobs",
    "jobs-failed": "/jobs?state=failed&task=refund&since=1h",
    "job": "/jobs/{dead}",
    "runs": "/runs",
    "run": "/runs/{run}",
    "schedules": "/schedules",
    "dead": "/dead",
    "workers": "/workers",
    "optimizer": "/optimizer?thing=charge",
    "profiler": "/profiler",
    "memory": "/memory",
    "settings": "/settings",
    "audit": "/audit",
    "overview": "/",  # last: by then its charts have something to show
}


@pytest.fixture(scope="module")
def addresses(house: House) -> dict[str, str]:
    """Return the addresses of all pages, once workers have told of themselves."""
    actions = Actions(house.engine)
    house.run(actions.pause("archive"))
    house.run(actions.bound("archive", 200_000))
    dead = house.run(house.engine.admin.dead())[0]
    run = house.run(load.running(house))
    return {name: house.url + path.format(dead=dead, run=run) for name, path in PAGES.items()}


def test_each_page_fits_each_screen_and_excludes_nobody(
    addresses: dict[str, str], screen: Screen, album: Path | None
) -> None:
    for name, url in addresses.items():
        screen.show(url)
        if name == "profiler":
            screen.page.locator("#flame button").nth(3).wait_for()
        if name == "overview":
            screen.page.locator("figcaption", has_text="median").filter(has_text="ms").wait_for()
            screen.page.get_by_role("link", name="archive").wait_for()
        for theme in THEMES:
            for width in WIDTHS:
                screen.resize(width, theme)
                assert screen.overflowing() == [], (name, theme, width)
                if album:
                    screen.page.screenshot(path=album / f"{name}-{theme}-{width}.png", full_page=True)
            rules = ["color-contrast"] if theme == "dark" else []  # the rest does not hang on the theme
            assert screen.barriers(*rules) == [], (name, theme)


def test_who_uses_the_keyboard_can_skip_the_menu_and_sees_where_they_are(
    addresses: dict[str, str], screen: Screen
) -> None:
    screen.show(addresses["queues"])
    screen.press("Tab")
    assert screen.page.evaluate("document.activeElement.innerText") == "Skip to the content"
    screen.press("Enter", "Tab")
    assert screen.page.evaluate("document.querySelector('main').contains(document.activeElement)")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert screen.page.evaluate(outline) != "none"
    assert screen.page.locator(".rail a[aria-current=page]").inner_text() == "Queues"


def test_the_theme_and_the_pause_are_remembered(addresses: dict[str, str], screen: Screen) -> None:
    screen.show(addresses["queues"], theme="light")
    screen.page.locator("#theme").click()
    screen.show(addresses["jobs"], theme="light")
    assert screen.page.evaluate("document.documentElement.dataset.theme") == "dark"
    screen.page.locator("#theme").click()
    screen.page.locator("#pause").click()
    screen.show(addresses["overview"])
    assert screen.page.locator("#pause").get_attribute("aria-pressed") == "true"
    screen.page.locator("#pause").click()
    screen.page.evaluate("localStorage.clear()")


def test_charts_and_numbers_live(house: House, addresses: dict[str, str], screen: Screen) -> None:
    screen.show(addresses["overview"])
    chart = screen.page.locator("figure.chart .plot").first
    before, told = chart.get_attribute("aria-label"), screen.page.locator("#points").get_attribute("data-points")
    house.run(load.send(house, "charge", [(1,)] * 777, queue="elsewhere"))
    screen.page.get_by_role("link", name="elsewhere").wait_for()
    screen.page.wait_for_function("told => document.querySelector('#points').dataset.points !== told", arg=told)
    screen.page.wait_for_function(
        "before => document.querySelector('figure.chart .plot').getAttribute('aria-label') !== before", arg=before
    )
    assert "enqueued" in (chart.get_attribute("aria-label") or "")


def test_jobs_are_found_among_many_page_by_page(addresses: dict[str, str], screen: Screen) -> None:
    screen.show(f"{addresses['jobs']}?state=queued")
    screen.page.get_by_label("Queue").fill("archive")
    with screen.page.expect_navigation():
        screen.page.get_by_role("button", name="Search").click()
    ids = "[...document.querySelectorAll('input[type=checkbox][name=id]')].map(one => one.value)"
    first = set(screen.page.evaluate(ids))
    screen.page.get_by_role("link", name="Next page").click()
    screen.page.get_by_role("link", name="First page").wait_for()
    assert first
    assert not first & set(screen.page.evaluate(ids))


def test_jobs_are_cancelled_by_the_keyboard(house: House, addresses: dict[str, str], screen: Screen) -> None:
    one, other = house.run(load.send(house, "watch", [("one",), ("other",)], delay=3600.0))
    screen.show(f"{house.url}/jobs/{one.id}")
    screen.tab_to(lambda text: text == "Cancel this job")
    screen.press("Enter")
    screen.done("Cancelled: 1 job")
    assert house.run(one.status()).state == "cancelled"
    screen.show(f"{house.url}/jobs?state=scheduled&task=watch")
    screen.tab_to(lambda text: text == f"Choose {other.id}")
    screen.press("Space")
    screen.page.get_by_text("1 chosen").wait_for()
    screen.page.get_by_role("button", name="Cancel").focus()
    screen.press("Enter")
    screen.done("Cancelled: 1 job")
    assert house.run(other.status()).state == "cancelled"


def test_a_queue_is_paused_bounded_and_resumed_by_the_keyboard(house: House, screen: Screen) -> None:
    house.run(load.send(house, "mail", [("somebody@example.org",)], queue="slow", delay=3600.0))
    screen.show(f"{house.url}/queues")
    screen.page.get_by_role("link", name="slow").wait_for()
    screen.tab_to(lambda text: text == "Pause slow")
    screen.press("Enter")
    screen.page.get_by_role("heading", name="Pause slow").wait_for()
    screen.page.keyboard.type("slwo")
    screen.press("Enter")
    screen.page.get_by_text("That was not it.").wait_for()
    screen.page.keyboard.type("slow")
    screen.press("Enter")
    screen.done("Queue slow is paused.")
    assert house.run(house.engine.broker.depth(["slow"])).queues["slow"].paused
    screen.tab_to(lambda text: "may wait in slow" in text)
    screen.page.keyboard.type("12")
    screen.press("Enter")
    screen.done("12 jobs at most")
    screen.tab_to(lambda text: text == "Resume slow")
    screen.press("Enter")
    screen.done("hands out its jobs again")
    depth = house.run(house.engine.broker.depth(["slow"])).queues["slow"]
    assert (depth.paused, depth.most) == (False, 12)


def test_a_dead_letter_is_replayed_and_one_is_purged_by_the_keyboard(house: House, screen: Screen) -> None:
    letters = house.run(house.engine.admin.dead())
    screen.show(f"{house.url}/dead")
    screen.tab_to(lambda text: text == f"Choose {letters[-1]}")
    screen.press("Space")
    screen.page.get_by_role("button", name="Purge", exact=True).focus()
    screen.press("Enter")
    screen.page.get_by_role("heading", name=f"Delete {letters[-1]}").wait_for()
    screen.page.keyboard.type("delete")
    screen.press("Enter")
    screen.done("Deleted: 1 job")
    assert letters[-1] not in house.run(house.engine.admin.dead())
    screen.tab_to(lambda text: text == f"Choose {letters[-2]}")
    screen.press("Space")
    screen.page.get_by_role("button", name="Replay", exact=True).focus()
    screen.press("Enter")
    screen.done("Enqueued again: 1 job")


def test_a_schedule_is_added_run_and_removed_by_the_keyboard(house: House, screen: Screen) -> None:
    screen.show(f"{house.url}/schedules")
    screen.page.get_by_label("Name").focus()
    screen.page.keyboard.type("hourly")
    screen.press("Tab")
    screen.page.keyboard.type("mail")
    screen.press("Tab")
    screen.page.keyboard.type("0 99 * * *")
    screen.press("Enter")
    screen.page.get_by_role("alert").get_by_text("hourly").wait_for()
    screen.complaints.clear()  # a refusal is a complaint of the browser's
    screen.page.get_by_label("Crontab").fill("0 * * * *")
    screen.page.get_by_label("Arguments").fill('["somebody@example.org"]')
    screen.page.get_by_role("button", name="Add").focus()
    screen.press("Enter")
    screen.done("Schedule hourly is added")
    screen.tab_to(lambda text: text == "Run now hourly")
    screen.press("Enter")
    screen.done("Enqueued job")
    screen.tab_to(lambda text: text == "Remove hourly")
    screen.press("Enter")
    screen.page.get_by_role("heading", name="Remove hourly").wait_for()
    screen.page.keyboard.type("hourly")
    screen.press("Enter")
    screen.done("Schedule hourly is removed")
    assert "hourly" not in house.run(house.engine.admin.schedules())[0]


def test_the_flame_graph_is_walked_by_the_keyboard(addresses: dict[str, str], screen: Screen) -> None:
    screen.show(addresses["profiler"])
    screen.page.locator("#flame button").nth(3).wait_for()
    screen.page.locator("#flame button").first.focus()
    screen.press("ArrowDown")
    name = screen.page.evaluate("document.activeElement.textContent")
    assert name != "all"
    assert name in screen.page.locator("#frame").inner_text()
    screen.press("Enter")
    wide = "document.activeElement.getBoundingClientRect().width / document.querySelector('#flame').clientWidth"
    assert screen.page.evaluate(wide) > 0.95
    screen.press("Escape")
    assert screen.page.evaluate("document.activeElement.textContent") == "all"


@pytest.mark.parametrize(("path", "says"), [("/jobs/none", "nobody knows"), ("/nowhere", "There is no such page")])
def test_what_is_not_there_is_said_in_words(house: House, screen: Screen, path: str, says: str) -> None:
    screen.show(f"{house.url}{path}")
    assert says in screen.page.locator("main").inner_text()
    assert screen.barriers() == []
    screen.complaints.clear()
