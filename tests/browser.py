"""A browser for the pages: Debian's chromium, driven by Playwright; without one, tests skip."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += [f"--disable-{what}" for what in ("background-networking", "component-update", "sync")]
MOST = 120_000  # ms for anything to happen, on a machine that has much else to do


@dataclass
class Watched:
    """A page, its errors on the console, and addresses it asked of another host than its own."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def hear(self, message: Any) -> None:
        """Note an error on the console, but for answers that are errors."""
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)

    def let(self, route: Any) -> None:
        """Let a request through, if it goes to the page's own host."""
        asked, own = urlsplit(route.request.url), urlsplit(self.url)
        if asked.scheme in ("data", "blob") or asked[:2] == own[:2]:
            route.continue_()
        else:
            self.foreign.append(route.request.url)
            route.abort()

    def violations(self) -> list[str]:
        """What axe-core finds serious or critical."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright")
        found = axe.Axe().run(self.page).response["violations"]
        return [str(rule) for rule in found if rule["impact"] in ("serious", "critical")]


Open = Callable[..., Watched]
"""Opens an address; further arguments are those of a browser context (`viewport`, …)."""


# Not of the session: while Playwright runs, no other test of the process can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    pages: list[Watched] = []

    def opened(url: str, **options: Any) -> Watched:
        context = browser.new_context(**options)
        context.set_default_timeout(MOST)
        watched = Watched(context.new_page(), url)
        pages.append(watched)
        context.route("**/*", watched.let)
        watched.page.on("pageerror", lambda error: watched.errors.append(str(error)))
        watched.page.on("console", watched.hear)
        watched.page.goto(url)
        return watched

    yield opened
    for watched in pages:
        watched.page.context.close()
        assert (watched.errors, watched.foreign) == ([], [])
