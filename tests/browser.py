"""A real browser for the tests: Debian's Chromium, or Playwright's own, without a window."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Playwright

INSTALL = "pip install playwright, and apt-get install chromium or playwright install chromium"
"""The commands that install what these tests need."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; the test is skipped where there is none.

    Only one at a time in a process: fixtures that give it on end with their module, so ``scope="module"``.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip(f"Playwright is not installed: {INSTALL}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_executable(playwright), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def _executable(playwright: Playwright) -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for path in map(shutil.which, names) if path), playwright.chromium.executable_path)
    if not Path(found).is_file():
        pytest.skip(f"there is no Chromium on this machine: {INSTALL}")
    return found


SLOW_PLUGIN = re.compile(r"Plugin @jupyter\S+ \(with \d+ dependants\) took [\d.]+ms to activate\.")
"""A warning of Jupyter's on a busy machine, about plugins of its own."""


@dataclass(slots=True)
class Heard:
    """All that the pages of a browser's context asked for and complained of.

    Attributes
    ----------
    messages : list of str
        On the console, warnings and errors, but Jupyter's of its own slowness; and errors that no script caught.
    requests : list of str
        The URLs asked for, but those that hold their content themselves.
    """

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, context: BrowserContext) -> Heard:
        """Listen to a context from now on."""
        heard = cls()
        context.on("console", lambda message: heard._console(message))  # Playwright marks what it is given
        context.on("weberror", lambda error: heard.messages.append(f"uncaught: {error.error}"))
        context.on("request", lambda request: heard._request(request.url))
        return heard

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not SLOW_PLUGIN.fullmatch(message.text):
            self.messages.append(f"{message.type}: {message.text}")

    def _request(self, url: str) -> None:
        if not url.startswith(("data:", "blob:")):
            self.requests.append(url)
