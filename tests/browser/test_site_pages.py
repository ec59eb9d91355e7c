"""A hospital's own pages in a real browser, on a real node with real radiographs: decide, look, open a room, read."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from site_node.governance.approval import account_of_last, decisions_on
from site_node.governance.gate import Gate
from site_node.governance.records import open_records
from site_node.reading.records import open_reading_records, readings_of, views_after
from tests.browser.pages import FAULTS, WAIT_SECONDS, click, wait_for, wait_for_heading, wait_for_text, wait_until_drawn
from tests.browser.served_site import ServedSite, served_site

pytestmark = pytest.mark.xdist_group("browser")  # two at once would take each other's port for the pages
PAGES = {
    "readiness": "Readiness",
    "tasks": "Tasks",
    "budget": "Privacy budget",
    "egress": "What left",
    "index": "Index",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    with served_site(tmp_path_factory.mktemp("node")) as served:
        yield served


def enter(browser: WebDriver, site: ServedSite, role: str, page: str = "") -> None:
    browser.get(f"{site.pages}/{page}")
    wait_for(browser, By.ID, "token").send_keys(site.tokens[role])
    click(browser, By.CSS_SELECTOR, "button[type=submit]")


def faults(browser: WebDriver) -> list[str]:
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, FAULTS)]


def button(words: str) -> str:
    return f"//button[contains(., '{words}') and not(@disabled)]"


def test_a_token_of_another_hospital_is_refused_and_kept_nowhere(browser: WebDriver, site: ServedSite) -> None:
    browser.get(site.pages)
    wait_for(browser, By.ID, "token").send_keys("wrs_of-another-hospital")
    click(browser, By.CSS_SELECTOR, "button[type=submit]")
    assert "does not count here" in wait_for(browser, By.CSS_SELECTOR, "[role=alert]").text
    assert not [cookie for cookie in browser.get_cookies() if cookie["name"].startswith("wardround-")]


def test_an_administrator_approves_what_was_read_and_walks_through_every_page(
    browser: WebDriver, site: ServedSite
) -> None:
    enter(browser, site, "administrator")
    wait_for_heading(browser, "Approvals at st-anna")
    wait_for_text(browser, "What leaves this hospital, and how it is protected")
    cookies = [cookie for cookie in browser.get_cookies() if cookie["name"].startswith("wardround-")]
    assert [cookie["httpOnly"] for cookie in cookies] == [True]
    assert site.tokens["administrator"] not in browser.page_source + browser.current_url
    wait_until_drawn(browser)
    click(browser, By.XPATH, "//label[contains(., 'I have read what is above')]")
    click(browser, By.XPATH, button("Approve"))
    wait_for_text(browser, "approved, the gate takes it up")
    with closing(open_records(site.settings.paths)) as records:
        decisions = [(one.decision, one.person) for one in decisions_on(records, site.study.digest)]
        assert (decisions, account_of_last(records, site.study.digest)) == ([("approved", "anna")], "api:anna")
    with closing(Gate(site.settings)) as gate:
        while gate.sweep():
            pass
    for page, title in PAGES.items():
        browser.get(f"{site.pages}/{page}")
        wait_for_heading(browser, title)
        wait_until_drawn(browser)
        assert faults(browser) == [], f"on {title}"
    wait_for_text(browser, "DX")
    browser.get(f"{site.pages}/egress")
    wait_for_text(browser, "no answer yet")
    browser.get(f"{site.pages}/doctor")
    wait_for_text(browser, "policy.yaml can be read")
    names = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in names if not name.startswith((site.pages, "data:", "blob:"))] == []


def test_a_clinician_reads_one_case_of_an_open_room_and_is_then_told_the_label(
    browser: WebDriver, site: ServedSite
) -> None:
    enter(browser, site, "administrator", "reading-room")
    wait_for_heading(browser, "Reading room")
    wait_until_drawn(browser)
    click(browser, By.XPATH, "//*[@data-testid='stExpander']//summary")
    wait_until_drawn(browser)
    click(browser, By.XPATH, button("Open it"))
    wait_for_text(browser, "opened by anna")
    assert browser.find_elements(By.CSS_SELECTOR, ".wr-picture") == []  # pictures are for clinicians
    click(browser, By.LINK_TEXT, "Sign out")
    WebDriverWait(browser, WAIT_SECONDS).until(lambda driver: "/sign-in" in driver.current_url)
    enter(browser, site, "clinician", "reading-room")
    wait_for_heading(browser, "Reading room")
    wait_for(browser, By.CSS_SELECTOR, ".wr-picture img")
    width = "return document.querySelector('.wr-picture img').naturalWidth"
    WebDriverWait(browser, WAIT_SECONDS).until(lambda driver: driver.execute_script(width) > 0)
    assert "hospital's label" not in browser.find_element(By.CSS_SELECTOR, ".st-key-card-judgement").text.replace(
        "The hospital's label is shown afterwards", ""
    )
    wait_until_drawn(browser)
    click(browser, By.XPATH, "//label[contains(., 'pneumonia')]")
    wait_until_drawn(browser)
    click(browser, By.XPATH, button("Give the reading"))
    wait_for(browser, By.XPATH, button("Next case"))
    assert "the hospital's label" in browser.find_element(By.CSS_SELECTOR, ".st-key-card-judgement").text
    assert faults(browser) == []
    with open_reading_records(site.settings.paths) as records:
        [reading] = readings_of(records, site.study.digest)
        views = views_after(records, 0, 10)
    assert (reading.person, reading.labels) == ("clara", ("pneumonia",))
    assert {(view["person"], view["case_code"], view["outcome"]) for view in views} == {
        ("clara", reading.case_code, "shown")
    }
    assert "NIH" not in browser.find_element(By.CSS_SELECTOR, '[data-testid="stMain"]').text
