"""A real PostgreSQL for tests: a cluster of its own in a temporary folder, on a Unix socket, gone afterwards.

`cluster()` starts it; `fresh_database()` gives the URL of an empty database in it. PostgreSQL refuses to run as root;
there it runs as the user `postgres`, who comes with Debian's package.
"""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine

REMEDY = "Install Debian's package: apt-get install postgresql (`make postgresql` does)."
SECONDS = 60
MOST_CONNECTIONS = 300


class PostgresqlMissingError(Exception):
    """The server's programs are not on this machine."""


@contextmanager
def cluster(*, synced: bool = False) -> Iterator[Path]:
    """Run a server and give the folder of its socket; `synced` makes commits durable, as a hospital's would be."""
    programs = _programs()
    # A socket's path is short by law of the kernel: not below pytest's long names.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    data = folder / "data"
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    _run(programs / "initdb", "-D", data, "-U", "wardround", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c max_connections={MOST_CONNECTIONS}"
    options += "" if synced else " -c fsync=off -c synchronous_commit=off"
    _run(programs / "pg_ctl", "-D", data, "-o", options, "-w", "-t", str(SECONDS), "-l", folder / "log", "start")
    try:
        yield folder
    finally:
        _run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def fresh_database(folder: Path) -> str:
    """Make an empty database in the cluster of this folder and return its URL."""
    name = f"hub_{uuid.uuid4().hex}"
    engine = create_engine(_url(folder, "postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"create database {name}")
    engine.dispose()
    return _url(folder, name)


def _url(folder: Path, name: str) -> str:
    return f"postgresql+psycopg://wardround@/{name}?host={quote(str(folder), safe='')}"


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    where = str(found[-1]) if found else shutil.which("initdb")
    if where is None:
        raise PostgresqlMissingError(f"There is no PostgreSQL server on this machine. {REMEDY}")
    return Path(where).parent


def _run(*command: object) -> None:
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words]
    done = subprocess.run(words, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=2 * SECONDS)
    if done.returncode:
        raise RuntimeError(f"{Path(str(command[0])).name} failed: {done.stderr.decode()[-2000:]}")
