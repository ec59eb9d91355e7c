"""The directions of imports that the deployment depends on, read from the sources with `ast`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "site_node", "hub", "ui", "compose")
STANDARD = set(sys.stdlib_module_names)
PROTOCOL_NEEDS = {
    "numpy",
    "pydantic",
    "pydantic_core",
    "cryptography",
    "safetensors",
    "dp_accounting",
    "zstandard",
    "rfc8785",
    "yaml",
    "tenseal",  # behind an extra, in one file, imported on use: see the test below
}
READS_PATIENTS = (
    "site_node.dicom",
    "site_node.cohort",
    "site_node.labels",
    "site_node.readiness",
    "site_node.reading",
    "site_node.training",
    "site_node.tasks",
    "site_node.privacy",
    "site_node.privacy_audit",
)
RULES_OF_THE_HUB = (
    "hub/studies/lifecycle.py",
    "hub/rounds/transitions.py",
    "hub/rounds/participants.py",
    "hub/rounds/closing.py",
    "hub/audit/merkle.py",
    "hub/auth/roles.py",
    "hub/auth/throttling.py",
)


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return the dotted names of all modules that a file imports, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def sources(folder: str) -> Iterator[Path]:
    return (path for path in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in path.parts)


def offences(folder: str, *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(folder)
        for name in sorted(imports_of(path))
        if any(name == prefix or name.startswith(prefix + ".") for prefix in forbidden)
    ]


@pytest.mark.parametrize("package", ["protocol", "site_node", "hub", "ui"])
def test_compose_is_imported_by_nobody(package: str) -> None:
    assert offences(package, "compose") == []


def test_protocol_imports_nothing_of_ours_and_only_what_both_sides_have() -> None:
    roots = {name.split(".")[0] for path in sources("protocol") for name in imports_of(path)}
    assert roots - STANDARD - PROTOCOL_NEEDS - {"protocol"} == set()


def test_the_native_homomorphic_library_is_loaded_by_one_file_and_never_by_the_hub() -> None:
    importing = [p for top in PACKAGES for p in sources(top) if any(n.startswith("tenseal") for n in imports_of(p))]
    assert [str(path.relative_to(ROOT)) for path in importing] == ["protocol/homomorphic/scheme.py"]
    assert offences("hub", "protocol.homomorphic.scheme") == []  # no native code reads foreign bytes at the hub


def test_site_and_hub_do_not_know_each_other() -> None:
    assert offences("site_node", "hub", "ui", "sqlalchemy", "streamlit") == []
    served = ("site_node/api/", "site_node/reading/")
    assert not [offence for offence in offences("site_node", "fastapi") if not offence.startswith(served)]
    assert offences("hub", "site_node", "ui", "monai", "pydicom", "torch", "streamlit") == []


def test_ui_imports_none_of_ours() -> None:
    assert offences("ui", "protocol", "site_node", "hub", "compose", "torch", "sqlalchemy") == []


def test_only_storage_imports_sqlalchemy_and_alembic() -> None:
    found = [offence for offence in offences("hub", "sqlalchemy", "alembic") if not offence.startswith("hub/storage/")]
    assert found == []


def test_the_agent_can_read_no_patient_and_hold_no_ledger() -> None:
    governance = ("site_node.governance", "site_node.update", "site_node.cli")
    heavy = ("torch", "monai", "pydicom", "numpy")
    assert offences("site_node/agent", *READS_PATIENTS, *governance, *heavy) == []


def test_the_gate_can_read_no_patient_and_reach_no_network() -> None:
    network = ("httpx", "redis", "celery", "socket", "urllib", "http", "requests", "site_node.agent")
    assert offences("site_node/governance", *READS_PATIENTS, "torch", "monai", "pydicom", *network) == []


def test_the_site_s_api_can_read_no_patient_and_does_not_speak_to_the_hub() -> None:
    assert offences("site_node/api", *READS_PATIENTS, "torch", "monai", "pydicom", "httpx", "site_node.agent") == []


def test_the_reading_api_speaks_to_nobody_and_knows_of_the_gate_its_policy_alone() -> None:
    network = ("httpx", "urllib", "http", "requests", "redis", "celery", "socket")
    assert offences("site_node/reading", *network, "site_node.agent", "site_node.tasks") == []
    of_the_gate = offences("site_node/reading", "site_node.governance", "site_node.update")
    assert not [offence for offence in of_the_gate if "site_node.governance.policy" not in offence]


def test_what_can_read_patients_reaches_no_network() -> None:
    network = ("httpx", "urllib.request", "http.client", "requests", "site_node.agent")
    assert offences("site_node/tasks", *network) == []  # Celery reaches Redis; a lease names its holder's machine
    for folder in ("dicom", "cohort", "labels", "readiness", "training", "privacy", "update"):
        assert offences(f"site_node/{folder}", "socket", "redis", "celery", *network) == []


def test_privacy_and_cohort_are_below_training_and_governance() -> None:
    above = ("site_node.training", "site_node.update", "site_node.governance", "site_node.tasks", "site_node.cli")
    for folder in ("dicom", "privacy", "cohort", "labels"):
        assert offences(f"site_node/{folder}", *above) == []
    assert offences("site_node/dicom", "site_node.cohort", "site_node.privacy") == []


def test_rules_of_the_hub_do_no_deeds() -> None:
    deeds = ("hub.storage", "httpx", "fastapi", "celery", "time", "random", "os", "pathlib")
    found = []
    for path in (ROOT / rule for rule in RULES_OF_THE_HUB):
        assert path.exists(), f"{path.name} is missing; correct RULES_OF_THE_HUB"
        found += [offence for offence in offences(str(path.parent), *deeds) if path.name in offence]
    assert found == []


def test_only_the_entry_points_read_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        if any(word in path.read_text(encoding="utf-8") for word in ("os.environ", "os.getenv"))
    ]
    assert set(readers) <= ENVIRONMENT_READERS


# compose starts processes and hands its own environment on; an entry point may set thread counts before torch loads; a
# worker gives its jobs the name of a user that has no account, and shows them one GPU; the doctor says which proxy and
# which bundle the agent's environment names; gloo and NCCL are told by it alone to keep to the loopback.
ENVIRONMENT_READERS = {
    *("compose/processes.py", "compose/nursery.py"),
    *("site_node/tasks/child.py", "site_node/tasks/gpu.py", "site_node/doctor/hub.py"),
    "site_node/training/loopback.py",
}


@pytest.mark.parametrize("package", ["protocol", "site_node"])
def test_importing_the_package_needs_nothing_heavy(package: str) -> None:
    code = f"import {package}, sys; sys.exit(bool({{'torch', 'monai', 'pydicom', 'sqlalchemy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
