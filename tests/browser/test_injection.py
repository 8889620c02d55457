"""What hostile names, arguments and errors do to the dashboard: they are read, and nothing else."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from tests.browser import load
from tests.browser.house import House
from tests.browser.screen import Screen
from tests.browser.shop import HOSTILE

STRANGERS = """() => [...document.querySelectorAll("script, iframe, style, object, embed, base, img, svg, #flame :not(button)")]
  .filter((one) => !one.matches("script[src^='/static/'], img[src^='/static/'], svg.parts, svg.curve, .key svg"))
  .map((one) => one.outerHTML.slice(0, 200))"""
"""Elements that no template of ours makes."""
MARKED = """() => [...document.querySelectorAll("*")].flatMap((one) => [...one.attributes])
  .filter((one) => one.name.startsWith("on") || one.name === "srcdoc"
    || (one.name === "style" && !one.ownerElement.closest("#flame, .plot"))
    || (one.name === "href" && one.value.startsWith("javascript:")))
  .map((one) => one.ownerElement.outerHTML.slice(0, 200))"""
"""Attributes that no template of ours writes; charts and flames get their sizes from scripts."""


def test_hostile_texts_make_no_element_on_any_page(hostile_house: House, screen: Screen) -> None:
    house = hostile_house
    dead = house.run(house.engine.admin.dead())
    assert len(dead) == len(HOSTILE)
    letters = [f"/jobs/{letter}" for letter in dead]
    asked = [f"/jobs?{urlencode({'task': text, 'queue': text, 'cursor': ''})}" for text in HOSTILE[:3]]
    asked += [f"/optimizer?thing={quote(HOSTILE[0])}", f"/dead?task={quote(HOSTILE[1])}", f"/x/{quote(HOSTILE[1])}"]
    pages = ["/", "/queues", "/jobs", "/schedules", "/dead", "/workers", "/profiler", "/memory", "/audit", "/settings"]
    told = ""
    for path in [*pages, *letters, *asked]:
        screen.show(house.url + path, width=360)
        screen.page.wait_for_load_state("networkidle" if path == "/profiler" else "load")
        assert screen.page.evaluate(STRANGERS) == [], path
        assert screen.page.evaluate(MARKED) == [], path
        assert screen.page.title().endswith("asyncworker"), path
        assert screen.overflowing() == [], path
        told += screen.page.inner_text("body")
        screen.complaints = [one for one in screen.complaints if "404" not in one]
    for text in HOSTILE[:-1]:
        assert text in told
    assert "\\u202e" in told
    assert "\x1b" not in told


def test_what_is_said_of_an_action_is_text_too(hostile_house: House, screen: Screen) -> None:
    queue = HOSTILE[1]
    hostile_house.run(load.send(hostile_house, "charge", [(1,)], queue=queue))
    screen.show(f"{hostile_house.url}/queues")
    row = screen.page.locator("tr", has=screen.page.get_by_role("link", name=queue))
    row.get_by_role("button", name="Resume").click()
    screen.done(f"Queue {queue} hands out its jobs again.")
    row.get_by_role("button", name="Pause").click()
    screen.page.get_by_role("heading", name=f"Pause {queue}").wait_for()
    screen.page.keyboard.type(queue)
    screen.press("Enter")
    screen.done(f"Queue {queue} is paused.")
    assert screen.page.evaluate(STRANGERS) == []
    screen.page.locator("tr", has=screen.page.get_by_role("link", name=queue)).get_by_role("textbox").fill("x")
    assert screen.page.evaluate(MARKED) == []
