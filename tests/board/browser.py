"""Debian's headless Chromium: what a person does, what it asked of the network, and what axe-core says of a page."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.kafka_io import wait_until

AXE = Path(__file__).parent / "axe" / "axe-4.14.1.min.js"
#: Set to a directory, pictures of the pages are written there: that is how docs/images come about.
PICTURES = "CURFEW_BOARD_PICTURES"
WIDTH, HEIGHT = 1400, 900
#: A page refreshes every two seconds, the consumer groups are read every ten; the machine may be busy.
SEEN_SECONDS = 90.0
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests in a container run as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    f"--window-size={WIDTH},{HEIGHT}",
)


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def open(self, url: str) -> None:
        self._driver.get(url)

    @property
    def title(self) -> str:
        return self._driver.title

    def click(self, selector: str) -> None:
        """By the keyboard, as everything has to be reachable by it."""
        script = (
            "const one = document.querySelector(arguments[0]); one?.focus(); "
            "return one !== null && document.activeElement === one"
        )
        assert self.run(script, selector), f"{selector} cannot be reached by the keyboard"
        ActionChains(self._driver).send_keys(Keys.ENTER).perform()

    def type(self, selector: str, text: str) -> None:
        self._driver.find_element(By.CSS_SELECTOR, selector).send_keys(text)

    def there(self, selector: str) -> bool:
        return bool(self._driver.find_elements(By.CSS_SELECTOR, selector))

    def text(self, selector: str = "main") -> str:
        """In one call: an element may be replaced by a refresh between two."""
        found = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return str(found)

    def wait_for(self, text: str, selector: str = "main") -> None:
        """Until the page shows it, without being loaded again by us."""
        wait_until(lambda: text in self.text(selector), f"the page shows {text!r}", SEEN_SECONDS)

    def run(self, script: str, *arguments: object) -> Any:
        return self._driver.execute_script(script, *arguments)

    def scheme(self, name: str) -> None:
        """light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def paper(self, yes: bool) -> None:
        """How the page is printed."""
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print" if yes else "", "features": []})

    def requests(self) -> set[str]:
        """Where requests have gone since the last call."""
        entries = self._driver.get_log("performance")  # type: ignore[no-untyped-call]
        found = [json.loads(entry["message"])["message"] for entry in entries]
        return {one["params"]["request"]["url"] for one in found if one["method"] == "Network.requestWillBeSent"}

    def violations(self) -> list[str]:
        """What axe-core calls serious or critical, with the elements."""
        # The page's own policy forbids foreign scripts; the debugger is not bound by it.
        self._driver.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text("utf-8")})
        found = self._driver.execute_async_script(
            "const done = arguments[0]; axe.run(document).then(found => done(found.violations))"
        )
        return [
            f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'] for node in one['nodes']][:3]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def picture(self, name: str) -> None:
        """The whole page, if pictures are wanted."""
        if directory := os.environ.get(PICTURES):
            height = max(HEIGHT // 2, int(self.run("return document.body.scrollHeight")))
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
            taken = self._driver.execute_cdp_cmd(
                "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip}
            )
            (Path(directory) / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    for option in _OPTIONS:
        options.add_argument(option)
    made = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(made)
    finally:
        made.quit()
