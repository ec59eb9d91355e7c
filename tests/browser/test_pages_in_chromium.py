"""The pages once in a real browser: sign in, reload, walk through all of them, sign out. No error anywhere."""

import time
from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.pages import FAULTS, WAIT_SECONDS, click, served_pages, sign_in, wait_for, wait_for_heading
from tests.fakes.fake_hub import running_fake_hub

pytestmark = pytest.mark.xdist_group("browser")  # two at once would take each other's port for the pages
TITLES = {
    "Launch a study": "Launch a study",
    "Rounds": "Rounds",
    "Validate": "Validate",
    "Versions": "Versions",
    "Audit log": "Audit log",
    "Overview": "Overview",
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the pages in a process of their own, against a fake hub."""
    with running_fake_hub() as hub, served_pages(hub.url) as url:
        yield url


def test_a_stranger_meets_the_sign_in_page_and_a_wrong_password_is_refused(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/audit")
    assert "/sign-in" in browser.current_url
    sign_in(browser, "wrong")
    assert "do not match" in wait_for(browser, By.CSS_SELECTOR, "[role=alert]").text


def test_signing_in_survives_a_reload_and_every_page_opens_without_a_fault(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/rounds")
    sign_in(browser)
    wait_for_heading(browser, "Rounds")
    assert "token" not in browser.current_url
    assert browser.execute_script("return document.cookie").find("wardround") == -1
    cookies = [cookie for cookie in browser.get_cookies() if cookie["name"].startswith("wardround-")]
    assert [cookie["httpOnly"] for cookie in cookies] == [True]
    browser.refresh()
    wait_for_heading(browser, "Rounds")
    for link, title in TITLES.items():
        click(browser, By.XPATH, f"//*[@data-testid='stSidebarNavLink'][contains(., '{link}')]")
        wait_for_heading(browser, title)
        time.sleep(1.5)
        faults = [element.text for element in browser.find_elements(By.CSS_SELECTOR, FAULTS)]
        assert faults == [], f"on {title}"
    assert browser.find_elements(By.CSS_SELECTOR, '[data-testid="stAppDeployButton"]') == []


def test_a_digest_copies_itself_when_clicked(browser: WebDriver, address: str) -> None:
    browser.get(f"{address}/versions")
    sign_in(browser)
    wait_for_heading(browser, "Versions")
    digest = wait_for(browser, By.CSS_SELECTOR, ".wr-digest")
    assert str(digest.get_attribute("data-copy")).startswith("sha256:")
    click(browser, By.CSS_SELECTOR, ".wr-digest")
    WebDriverWait(browser, 10).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".wr-digest.copied"))


def test_signing_out_ends_it(browser: WebDriver, address: str) -> None:
    browser.get(address)
    sign_in(browser)
    wait_for_heading(browser, "Overview")
    click(browser, By.LINK_TEXT, "Sign out")
    WebDriverWait(browser, WAIT_SECONDS).until(lambda driver: "/sign-in" in driver.current_url)
    assert "You are signed out" in browser.page_source
    browser.get(f"{address}/rounds")
    assert "/sign-in" in browser.current_url


def test_nothing_is_fetched_from_elsewhere(browser: WebDriver, address: str) -> None:
    browser.get(address)
    sign_in(browser)
    wait_for_heading(browser, "Overview")
    time.sleep(2)
    names = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    foreign = [name for name in names if not name.startswith((address, "data:", "blob:"))]
    assert foreign == []
