"""What each process loads before it has anything to do: a federation starts dozens of them."""

import json
import subprocess
import sys

import pytest

from compose.nursery import PRELOADED

ACCOUNTANT = {"dp_accounting", "scipy"}
IMAGES = {"torch", "monai", "pydicom", "PIL"}
SITE_COMMANDS = "import site_node.cli; "
STARTS = {
    "site --help": ("import site_node.cli", ACCOUNTANT | IMAGES | {"celery", "httpx", "jwt"}),
    "gate": (SITE_COMMANDS + "import site_node.governance.gate", ACCOUNTANT | IMAGES | {"celery", "httpx"}),
    "agent": (
        SITE_COMMANDS + "import site_node.agent.agent, site_node.agent.hub_client, site_node.tasks.app",
        ACCOUNTANT | IMAGES,
    ),
    "worker": (SITE_COMMANDS + "import site_node.tasks.worker", ACCOUNTANT | IMAGES | {"httpx", "requests"}),
    "hub --help": ("import hub.cli", ACCOUNTANT | IMAGES | {"fastapi", "sqlalchemy", "alembic", "celery", "numpy"}),
    "hub api": ("import hub.api.app, hub.serving, hub.tasks.app", ACCOUNTANT | IMAGES | {"alembic"}),
    "hub worker": ("import hub.tasks.app", ACCOUNTANT | IMAGES | {"alembic", "fastapi"}),
    "nursery": ("import " + ", ".join(PRELOADED), IMAGES | {"hub", "fastapi", "sqlalchemy"}),
}


@pytest.mark.parametrize("process", STARTS)
def test_a_process_does_not_load_at_its_start_what_it_needs_later_or_never(process: str) -> None:
    code, unwanted = STARTS[process]
    assert loaded_by(code) & unwanted == set()


def test_a_database_that_is_up_to_date_needs_no_alembic() -> None:
    fresh = "from hub.storage.migrate import *; from hub.storage.database import Database; d = Database('sqlite://');"
    assert "alembic" in loaded_by(f"{fresh} upgrade(d)")
    again = (
        f"{fresh} import sys; upgrade(d);"
        "[sys.modules.pop(name) for name in [*sys.modules] if name.startswith('alembic')]; upgrade(d)"
    )
    assert "alembic" not in loaded_by(again)


def loaded_by(code: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after some code."""
    tell = "; import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    ran = subprocess.run([sys.executable, "-c", code + tell], capture_output=True, check=True, timeout=120)
    return set(json.loads(ran.stdout))
