"""A hospital's node with the demo's radiographs and a study that waits for a decision; its two APIs and its pages."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

import compose
from protocol.signing import SigningKey
from protocol.study import StudySpec, parse_study
from site_node.api.reading_tokens import publish_readers
from site_node.api.roles import ROLES
from site_node.api.tokens import add_token, open_tokens
from site_node.cohort.index import index_folder
from site_node.enrolment import create_site
from site_node.governance.policy import policy_text
from site_node.orders import cohort_task_id
from site_node.settings import SiteSettings
from site_node.training.job import run_order
from tests.fakes.gated_site import GatedSite
from tests.fakes.orthanc import free_port

DEMO = Path(compose.__file__).parent / "demo"
PEOPLE = {"administrator": "anna", "clinician": "clara", "auditor": "otto"}


@dataclass(frozen=True)
class ServedSite:
    """The node's settings, its study, everybody's token by role, and where the pages are."""

    settings: SiteSettings
    study: StudySpec
    tokens: dict[str, str]
    pages: str


def waiting_site(folder: Path) -> tuple[GatedSite, StudySpec]:
    """Make a site of the demo's St. Anna, where the demo's study was proposed, counted, and waits for a person."""
    images = DEMO / "hospitals" / "st-anna"
    policy = policy_text("person").replace("maximum_epsilon: 3", "maximum_epsilon: 8")
    settings = create_site(folder / "site", "st-anna", "http://127.0.0.1:1", [images], policy=policy, threads=1)
    hub = SigningKey.generate()
    settings.paths.hub_key.write_text(hub.public.text)
    index_folder([images], settings.paths.index, labels=settings.labels)
    site, study = GatedSite(settings, hub), parse_study(yaml.safe_load((DEMO / "study.yaml").read_text()))
    site.propose(study)
    site.sweep()
    run_order(settings, cohort_task_id(study.digest))
    site.sweep()
    return site, study


@contextmanager
def serving(*words: str, at: str) -> Iterator[None]:
    """Run a command of `wardround site` until the block ends; it begins once the command listens."""
    command = [sys.executable, "-m", "site_node.cli", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stderr.readline, "") if process.stderr else iter(())
            assert any(f"Listening on {at}" in line for line in lines), "it ended before it listened"
            yield
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def served_pages_of(site_url: str, reading_url: str) -> Iterator[str]:
    """Run `wardround ui` for a site and give its address."""

    words = ("ui", "--site", site_url, "--reading", reading_url, "--port", "8750", "--json")
    with subprocess.Popen([sys.executable, "-m", "compose.cli", *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline() if process.stdout else "")["url"]
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def served_site(folder: Path) -> Iterator[ServedSite]:
    """Serve a site with its pages."""
    site, study = waiting_site(folder)
    site.gate.close()
    folder_of_codes = site.paths.worker / "reading"
    folder_of_codes.mkdir(mode=0o700)
    (folder_of_codes / "case.key").write_bytes(bytes(32))  # so that the first case is always the same, and has no text
    root, tokens = str(site.paths.root), dict[str, str]()
    with open_tokens(site.paths) as database:
        for role in ROLES:
            tokens[role] = add_token(database, PEOPLE[role], role, 1, time.time())
        publish_readers(site.paths, database, time.time())
    api, reading = free_port(), free_port()
    site_url, reading_url = f"http://127.0.0.1:{api}", f"http://127.0.0.1:{reading}"
    with ExitStack() as stack:
        stack.enter_context(serving("api", root, "--port", str(api), at=site_url))
        stack.enter_context(serving("reading-api", root, "--port", str(reading), at=reading_url))
        pages = stack.enter_context(served_pages_of(site_url, reading_url))
        yield ServedSite(site.settings, study, tokens, pages)
