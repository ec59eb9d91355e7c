"""No code path from what reads patients to a network: neither written down, nor taken when a job runs."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("protocol", "site_node", "hub", "ui", "compose")
READERS = (
    "site_node.dicom",
    "site_node.cohort",
    "site_node.privacy",
    "site_node.privacy_audit",
    "site_node.training",
    "site_node.update",
)
OPENS_SOCKETS = {
    "socket", "socketserver", "ssl", "asyncio", "select", "selectors", "http", "ftplib", "smtplib", "imaplib",
    "poplib", "telnetlib", "xmlrpc", "requests", "httpx", "httpcore", "aiohttp", "urllib3", "websockets", "grpc",
    "paramiko", "boto3", "obstore", "redis", "celery", "kombu", "sqlalchemy", "pynetdicom", "dicomweb_client",
}  # fmt: skip
OPENS_SOCKETS_INSIDE = {"urllib.request", "multiprocessing.connection", "multiprocessing.managers", "torch.distributed"}

OVER_LOOPBACK = ("site_node.training.loopback", "torch.distributed")
"""The one that may: between the processes of one machine, over its loopback, and only where site.yaml asks for it.
tests/site_node/training/test_processes.py looks at the sockets that it opens."""


def file_of(module: str) -> Path | None:
    """Return the file of one of our modules, or None if the name is no module (but something in one)."""
    base = ROOT.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None)


@cache
def imports_of(module: str) -> frozenset[str]:
    """Return the dotted names that a module imports, wherever in it."""
    path = file_of(module)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path else ():
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def reached_from(start: str) -> dict[str, list[str]]:
    """Return every module that can be reached through our own modules, each with a way to it."""
    ways, waiting = {start: [start]}, [start]
    while waiting:
        module = waiting.pop()
        for name in sorted(imports_of(module)):
            if name not in ways:
                ways[name] = [*ways[module], name]
                if name.split(".")[0] in OURS and file_of(name):
                    waiting.append(name)
    return ways


def modules_in(package: str) -> list[str]:
    folder = ROOT.joinpath(*package.split("."))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(folder.rglob("*.py"))]


def opens_sockets(name: str) -> bool:
    return name.split(".")[0] in OPENS_SOCKETS or any(f"{name}.".startswith(f"{m}.") for m in OPENS_SOCKETS_INSIDE)


@pytest.mark.parametrize("package", READERS)
def test_nothing_that_reads_patients_reaches_a_network_library_through_any_of_our_modules(package: str) -> None:
    found = [(name, way) for module in modules_in(package) for name, way in reached_from(module).items()]
    assert {
        " -> ".join(way) for name, way in found if opens_sockets(name) and not goes_over_loopback(name, way)
    } == set()


def goes_over_loopback(name: str, way: list[str]) -> bool:
    """Tell whether a network library is reached through the one module that may, and is the one that it may."""
    through, library = OVER_LOOPBACK
    return f"{name}.".startswith(f"{library}.") and way[-2] == through


def test_one_module_alone_imports_what_speaks_over_loopback() -> None:
    through, library = OVER_LOOPBACK
    importing = {
        m for top in OURS for m in modules_in(top) if any(f"{n}.".startswith(f"{library}.") for n in imports_of(m))
    }
    assert importing == {through}


def test_the_search_finds_a_way_that_is_there() -> None:
    ways = reached_from("site_node.tasks.run_order")
    assert any(opens_sockets(name) for name in ways)  # Celery, by which jobs come
    assert "httpx" in reached_from("site_node.agent.hub_client")
    assert "site_node.privacy_audit.audit" in reached_from("site_node.cli")  # an import inside a function of a function


def test_of_the_tasks_only_redis_is_reached() -> None:
    ways = {name: way for module in modules_in("site_node.tasks") for name, way in reached_from(module).items()}
    outside = {name.split(".")[0] for name, way in ways.items() if opens_sockets(name) and way[-2] != OVER_LOOPBACK[0]}
    # A lease names its holder's machine (socket); a child process is spoken to through a pipe (multiprocessing).
    assert outside <= {"celery", "kombu", "redis", "socket", "multiprocessing"}


NOT_FOR_INGEST = (
    *("site_node.governance", "site_node.agent", "site_node.tasks", "site_node.training", "site_node.privacy"),
    *("site_node.update", "torch", "monai", "httpx", "celery", "redis"),
)


def test_what_speaks_to_the_pacs_and_modalities_knows_neither_hub_nor_gate_nor_training() -> None:
    ways = {name: way for module in modules_in("site_node.ingest") for name, way in reached_from(module).items()}
    assert "pynetdicom" in {name.split(".")[0] for name in ways}
    found = [name for name in ways if any(f"{name}.".startswith(f"{forbidden}.") for forbidden in NOT_FOR_INGEST)]
    assert [" -> ".join(ways[name]) for name in found] == []


def test_only_the_audits_commands_import_the_audit_whose_noise_is_seeded() -> None:
    importing = {
        module
        for top in OURS
        for module in modules_in(top)
        if any(name.startswith("site_node.privacy_audit") for name in imports_of(module))
    }
    assert {m for m in importing if not m.startswith("site_node.privacy_audit")} == {"site_node.audit_commands"}


# Python tells its audit hooks (PEP 578) of every socket, whichever library opens it. A job is written in two halves:
# what it imports, and what it does. Importing MONAI imports urllib3, which binds a socket to loopback and closes it, to
# see whether there is IPv6: nothing is connected or sent.
WATCHED = """
import sys
opened = []
def watch(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        opened.append(event)
sys.addaudithook(watch)
{imports}
print("imports", *sorted(set(opened)))
opened.clear()
{job}
print("job", *sorted(set(opened)))
"""
IMPORTS = """
from pathlib import Path
from protocol.privacy_accounting import noise_multiplier_of
from site_node.dicom.pixels import read_pixels
from site_node.privacy.noise import NoiseSource
from site_node.privacy_audit.audit import audit
from site_node.privacy_audit.canaries import make_patients
from site_node.privacy_audit.reference_studies import small_study
from site_node.training import job
from site_node.training.evaluation import evaluate
from site_node.training.networks import initial_weights
from site_node.training.trainer import train
from site_node.training.transforms import preparation
from site_node.update.steps import difference, update_payload
"""
TRAINING = """
study = small_study(8.0)
image = next(Path("compose/demo/hospitals").rglob("*.dcm"))
preparation(study.preprocessing)(read_pixels(image))
base, patients, noise = initial_weights(study), make_patients(study, 30, 0), NoiseSource(b"k" * 32, "t", "c")
trained = train(study, base, patients, noise, noise_multiplier=noise_multiplier_of(study), round_number=1)
update_payload(study, difference(base, trained))
evaluate(study, trained, {"validation": patients}, noise)
"""
ONLY_LOOKED = {"socket.__new__", "socket.bind"}
CALLING = """
with socket.socket() as one:
    one.connect_ex(("127.0.0.1", 9))
"""


def sockets_opened_by(imports: str, job: str) -> dict[str, set[str]]:
    found = subprocess.run(
        [sys.executable, "-c", WATCHED.format(imports=imports, job=job)],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return {half: set(events) for half, *events in map(str.split, found.stdout.splitlines())}


def test_reading_training_and_evaluating_open_no_socket() -> None:
    opened = sockets_opened_by(IMPORTS, TRAINING)
    assert opened["job"] == set()
    assert opened["imports"] <= ONLY_LOOKED


def test_the_watch_sees_a_socket_that_is_opened() -> None:
    assert sockets_opened_by("import socket", CALLING)["job"] == {"socket.__new__", "socket.connect"}
