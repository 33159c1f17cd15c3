"""A headless Chromium without a network, driven through the chromedriver of the same system."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _absent(what: str) -> NoReturn:
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"{what}, and REQUIRE_BROWSER=1 asks for the browser tests.")
    pytest.skip(f"{what}; the browser tests need it (REQUIRE_BROWSER=1 makes this a failure).")


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    return found or _absent(f"None of {', '.join(names)} is installed")


class Browser:
    """One browser window, and what happened in it."""

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, page: Path, width: int) -> None:
        """Opens a file in a window as wide as asked for; up to 600 pixels it is a phone."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width <= 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what happened before
        self.driver.get(page.as_uri())
        # Opened, so that what they hide is checked too.
        self.run("document.querySelectorAll('details').forEach(part => { part.open = true })")

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript; a promise is waited for."""
        return self.driver.execute_script(script)

    def console(self) -> list[str]:
        """Everything that was written to the console since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Every address asked for since the page was opened."""
        events = (json.loads(entry["message"])["message"] for entry in
                  self.driver.get_log("performance"))  # fmt: skip
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with a profile of its own; skips, or fails with REQUIRE_BROWSER=1, without one."""
    try:
        from selenium import webdriver
    except ImportError:
        _absent("The Python package selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    service = webdriver.ChromeService(executable_path=_program("chromedriver"))
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield Browser(driver)
    finally:
        driver.quit()
