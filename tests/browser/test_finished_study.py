"""A real finished study on a real hub, looked at in a real browser: the pages show what the report says."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from compose.simulation import Simulation, run_simulation
from hub.auth.coordinator import add_person
from hub.services import open_services
from hub.settings import Settings
from protocol.study import parse_study
from tests.browser.pages import (
    FAULTS,
    click,
    served_pages,
    sign_in,
    wait_for,
    wait_for_heading,
    wait_for_text,
    wait_until_drawn,
)
from tests.fakes.dicom import make_hospital
from tests.fakes.fake_hub import PASSWORD

STUDY: dict[str, Any] = {
    "name": "bright-corner",
    "title": "A bright corner",
    "cohort": {"modality": ["DX"], "minimum_patients": 4},
    "label": {"classes": ["absent", "present"]},
    "splits": {"validation": 0.2, "test": 0.3},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "convnet"},
    "training": {"local_steps": 4, "sampling_rate": 0.5, "learning_rate": 0.5},
    "rounds": 2,
    "participants": {"training_patients": 40},
    "privacy": {"epsilon": 8.0, "delta": 1e-3},
}

# By how many pixels the log is wider than its card, or the widest cell's content than its cell.
pytestmark = pytest.mark.xdist_group("browser")  # two at once would take each other's port for the pages
CUT = """
const frame = document.querySelector(".wr-scroll");
if (!frame) return null;
const boxes = [frame, ...frame.querySelectorAll("td")];
return Math.max(...boxes.map(box => box.scrollWidth - box.clientWidth));
"""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "compose.cli", "hub", "serve", str(folder), "--port", url.rpartition(":")[2]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    httpx.get(f"{url}/v1/health", trust_env=False).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], str]]:
    folder = tmp_path_factory.mktemp("study")
    sites = {name: make_hospital(folder / name, 40, seed=n).folder for n, name in enumerate(("north", "harbour"))}
    out = folder / "out"
    out.mkdir()
    simulation = Simulation(parse_study(STUDY), sites, out, seed=1, threads=1)
    report = run_simulation(simulation, Console(quiet=True))
    services = open_services(Settings(dir=out / "hub"), lambda _name, _arguments: None)
    for name, role in (("ada", "researcher"), ("claire", "clinician"), ("otto", "operator")):
        add_person(services, name, role, PASSWORD, "operator:console")
    services.database.close()
    with serving(out / "hub") as hub_url, served_pages(hub_url) as url:
        yield report, url


def test_the_pages_show_the_reports_figures(browser: WebDriver, finished: tuple[dict[str, Any], str]) -> None:
    report, url = finished
    auc = report["final"]["metrics"]["auc"]
    for page, title in (("rounds", "Rounds"), ("validate-models", "Validate"), ("versions", "Versions")):
        browser.get(f"{url}/{page}")
        if "/sign-in" in browser.current_url:
            sign_in(browser)
        wait_for_heading(browser, title)
        wait_for_text(browser, f"{auc:.3f}")
        assert [element.text for element in browser.find_elements(By.CSS_SELECTOR, FAULTS)] == []
    digest = report["versions"][2]["digest"]
    wait_for(browser, By.CSS_SELECTOR, f'[data-copy="{digest}"]')


def test_a_clinicians_decision_is_recorded(browser: WebDriver, finished: tuple[dict[str, Any], str]) -> None:
    _, url = finished
    browser.get(f"{url}/validate-models")
    sign_in(browser, name="claire")
    wait_for_heading(browser, "Validate")
    wait_for_text(browser, "Held-out patients: no DP")
    wait_until_drawn(browser)
    wait_for(browser, By.CSS_SELECTOR, "textarea").send_keys("Looked at the ROC of both hospitals.")
    wait_until_drawn(browser)
    click(browser, By.XPATH, "//button[contains(., 'Accept')]")
    wait_for_text(browser, "Looked at the ROC of both hospitals.")
    wait_for_text(browser, "claire")


def test_the_operator_verifies_the_log(browser: WebDriver, finished: tuple[dict[str, Any], str]) -> None:
    _, url = finished
    browser.get(f"{url}/audit")
    sign_in(browser, name="otto")
    wait_for_heading(browser, "Audit log")
    click(browser, By.XPATH, "//button[contains(., 'Verify')]")
    wait_for_text(browser, "The log is whole")
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(CUT) == 0, "the log is cut off")
