"""The command lines of a federation on one machine: the same subcommands that an administrator types by hand."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compose.layout import DemoLayout
from compose.processes import Service

# Several processes share one machine: numeric libraries must not each take all cores.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# A proxy that serves the rest of the machine must not be asked for its own loopback interface.
DIRECT = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
# By the environment and not by the command line, because everybody on a machine can read command lines.
HUB_REDIS = "WARDROUND_HUB_REDIS"
HUB_PASSWORD = "WARDROUND_PASSWORD"  # noqa: S105 -- the name of a variable


@dataclass(frozen=True)
class Programs:
    """Makes the services and one-time commands of a demo."""

    layout: DemoLayout
    threads: int

    def hub_init(self) -> Service:
        """Make the hub's folder, keys and database."""
        return self._service("hub init", "hub", "init", self.layout.hub)

    def hub_api(self, port: int, redis_url: str) -> Service:
        """Serve the hub's HTTP API."""
        command = ("hub", "serve", self.layout.hub, "--port", str(port), "--strict-port")
        return self._service("hub api", *command, environment={HUB_REDIS: redis_url})

    def hub_worker(self, redis_url: str) -> Service:
        """Run the hub's Celery worker."""
        return self._service("hub worker", "hub", "worker", self.layout.hub, environment={HUB_REDIS: redis_url})

    def add_person(self, name: str, role: str, password: str) -> Service:
        """Make a person's account."""
        command = ("hub", "users", "add", self.layout.hub, name, "--role", role)
        return self._service(f"hub users {name}", *command, environment={HUB_PASSWORD: password})

    def list_people(self) -> Service:
        """Print the accounts that there are."""
        return self._service("hub users", "hub", "users", "list", self.layout.hub, "--json")

    def site_init(self, name: str, hub_url: str, images: Path) -> Service:
        """Make a hospital's folder, keys, settings and policy."""
        options = ("--name", name, "--hub", hub_url, "--images", str(images), "--approval", "automatic")
        return self._service(f"{name} init", "site", "init", self.layout.site(name), *options)

    def site_index(self, name: str) -> Service:
        """Index a hospital's images."""
        return self._service(f"{name} index", "site", "index", self.layout.site(name))

    def site_enroll(self, name: str, code: str) -> Service:
        """Enrol a hospital with its invitation code."""
        return self._service(f"{name} enroll", "site", "enroll", self.layout.site(name), "--code", code)

    def site_process(self, name: str, part: str) -> Service:
        """Run a hospital's gate, agent or worker."""
        return self._service(f"{name} {part}", "site", part, self.layout.site(name))

    def ui(self, hub_url: str, port: int) -> Service:
        """Serve the web pages."""
        return self._service("ui", "ui", "--hub", hub_url, "--port", str(port), "--port-strict")

    def _service(self, role: str, *words: str | Path, environment: Mapping[str, str] | None = None) -> Service:
        # -P: the folder in which the demo is started may hold a `hub` or `ui` of somebody else.
        command = (sys.executable, "-P", "-m", "compose.cli", *(os.fspath(word) for word in words))
        threads = {name: str(self.threads) for name in THREAD_VARIABLES}
        fixed = {**threads, **DIRECT, "PYTHONUNBUFFERED": "1"}
        environment = {**fixed, **(environment or {})}
        return Service(role, command, self.layout.log(role), environment, born=words[0] == "site")


def threads_for_each(hospitals: int, cores: int | None = None) -> int:
    """Return how many threads each hospital's training may use, so that all train at once.

    >>> threads_for_each(3, cores=8), threads_for_each(3, cores=2)
    (2, 1)
    """
    return max(1, (cores or os.cpu_count() or 1) // hospitals)
