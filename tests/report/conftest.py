"""A real browser for the tests that need one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tests.report.chromium import start


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs Chromium and its driver")


class Browser:
    """Chromium on a page that was opened from disk; ``done`` says what its console held."""

    def __init__(self, driver: webdriver.Chrome, shots: Path) -> None:
        self.driver = driver
        self.shots = shots

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a window, or below 600 pixels a phone, of a system that is light or dark."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})

    def open(self, page: Path, address: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(page.as_uri() + address)
        self.until("document.documentElement.dataset.ready === 'yes'")

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def until(self, condition: str, seconds: float = 20) -> None:
        """Wait until a JavaScript expression holds; the page is asked once a frame."""
        look = f"() => {{ try {{ return Boolean({condition}); }} catch {{ return false; }} }}"
        done = self.driver.execute_async_script(
            f"const done = arguments[0], look = {look}, end = performance.now() + {1000 * seconds};"
            "const late = () => performance.now() > end;"
            "const ask = () => look() ? done(true) : late() ? done(false) : requestAnimationFrame(ask);"
            "ask();"
        )
        assert done, f"never true: {condition}; the address is {self.driver.current_url}"

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def count(self, selector: str) -> int:
        return int(self.js("return document.querySelectorAll(arguments[0]).length", selector))

    def click(self, selector: str, place: int = 0) -> None:
        self.driver.find_elements("css selector", selector)[place].click()

    def keys(self, keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(keys)

    def search(self, text: str) -> None:
        """Put a text into the search field."""
        put = "const box = document.querySelector('[type=search]'); box.value = arguments[0];"
        self.js(put + "box.dispatchEvent(new Event('input'))", text)

    def choose(self, name: str, label: str) -> None:
        """Choose an entry of a select by its label."""
        self.js(
            "const box = document.querySelector(`select[name=${arguments[0]}]`);"
            "box.selectedIndex = [...box.options].findIndex((each) => each.textContent === arguments[1]);"
            "box.dispatchEvent(new Event('change', {bubbles: true}));",
            name,
            label,
        )

    def shot(self, name: str) -> None:
        self.shots.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(self.shots / f"{name}.png"))

    def console(self) -> list[str]:
        """Everything that the page said or did wrong since the last call."""
        return [json.dumps(entry["message"]) for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Callable[[Path], Browser]]:
    driver = start()
    driver.set_script_timeout(60)
    yield lambda shots: Browser(driver, shots)
    driver.quit()


@pytest.fixture
def browser(chromium: Callable[[Path], Browser], tmp_path: Path) -> Iterator[Browser]:
    """A browser with a window of 1280 x 900; whatever a test does, its console must stay clean."""
    found = chromium(Path(os.environ.get("INFTYTHINK_SCREENSHOTS") or tmp_path / "shots"))
    found.console()
    found.size(1280, 900)
    yield found
    assert found.console() == []
