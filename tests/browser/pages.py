"""The pages as a process of their own, and what a test does in them."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.fakes.fake_hub import PASSWORD

WAIT_SECONDS = 120
FAULTS = '[data-testid="stException"], [data-testid="stAlert"], .wr-note-box.bad'


@contextmanager
def served_pages(hub_url: str) -> Iterator[str]:
    """Run `wardround ui` for a hub and give its address."""
    command = [sys.executable, "-m", "compose.cli", "ui", "--hub", hub_url, "--port", "8700", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield json.loads(line)["url"]
        finally:
            process.terminate()
            process.wait(20)


def heading(browser: WebDriver) -> str:
    with contextlib.suppress(Exception):  # the page may be redrawn between finding and reading
        return str(browser.find_element(By.CSS_SELECTOR, ".wr-head h1").text)
    return ""


def wait_for_heading(browser: WebDriver, title: str) -> None:
    WebDriverWait(browser, WAIT_SECONDS).until(lambda driver: heading(driver) == title, f"no page {title!r}")


def wait_for_text(browser: WebDriver, text: str) -> None:
    def shown(driver: WebDriver) -> bool:
        with contextlib.suppress(Exception):
            return text in str(driver.find_element(By.TAG_NAME, "body").text)
        return False

    WebDriverWait(browser, WAIT_SECONDS).until(shown, f"the page never shows {text!r}")


def wait_for(browser: WebDriver, by: str, value: str) -> WebElement:
    """Wait until the page shows an element; a page's heading comes before the rest of it."""

    def shown(driver: WebDriver) -> WebElement | None:
        with contextlib.suppress(WebDriverException):
            return next((element for element in driver.find_elements(by, value) if element.is_displayed()), None)
        return None

    found = WebDriverWait(browser, WAIT_SECONDS).until(shown, f"the page never shows {value!r}")
    assert found is not None
    return found


def wait_until_drawn(browser: WebDriver) -> None:
    """Wait until no script of a Streamlit page runs: a redraw may lose what was typed or clicked before."""
    wait_for(browser, By.CSS_SELECTOR, '[data-testid="stApp"][data-test-script-state="notRunning"]')


def click(browser: WebDriver, by: str, value: str) -> None:
    """Click an element once it is there; the page may be redrawn between finding and clicking."""

    def clicked(driver: WebDriver) -> bool:
        with contextlib.suppress(WebDriverException):
            wait_for(driver, by, value).click()
            return True
        return False

    WebDriverWait(browser, WAIT_SECONDS).until(clicked, f"{value!r} cannot be clicked")


def sign_in(browser: WebDriver, password: str = PASSWORD, name: str = "ada") -> None:
    wait_for(browser, By.ID, "name").send_keys(name)
    wait_for(browser, By.ID, "password").send_keys(password)
    click(browser, By.CSS_SELECTOR, "button[type=submit]")
