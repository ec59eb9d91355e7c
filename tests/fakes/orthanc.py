"""A real PACS for tests: Orthanc with its DICOMweb plugin, in a folder and on ports of its own, gone afterwards.

`orthanc()` starts it. It speaks DICOM (C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE) with the AE title PACS, and DICOMweb
under `dicomweb_url` with a user and a password. It may be killed and started again, on the same ports, with what
it holds.
"""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

REMEDY = "Install Debian's packages: apt-get install orthanc orthanc-dicomweb (`make pacs` does)."
PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
SECONDS = 30
AE_TITLE, USER, PASSWORD = "PACS", "ward", "round"


class OrthancMissingError(Exception):
    """The server or its plugin is not on this machine."""


class OrthancFailedError(Exception):
    """The server did not come up."""


@dataclass
class Orthanc:
    """One server; `modalities` maps who may talk to it: AE title to the port where it listens."""

    folder: Path
    port: int
    http_port: int
    modalities: dict[str, dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the address of its own REST interface."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        """Return the address of its DICOMweb service."""
        return f"{self.url}/dicom-web"

    def start(self) -> None:
        """Start it and wait until both its ports answer."""
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration()), encoding="utf-8")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([_program(), configuration], stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise OrthancFailedError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(SECONDS)
            self.process = None

    def store(self, paths: Sequence[Path]) -> list[Path]:
        """Store files and return those that it took."""
        with self.rest() as http:
            return [p for p in paths if http.post("/instances", content=p.read_bytes()).status_code == 200]

    def delete_imaging_study(self, study_instance_uid: str) -> None:
        """Delete one imaging study."""
        with self.rest() as http:
            for identifier in http.post("/tools/lookup", content=study_instance_uid).json():
                if identifier["Type"] == "Study":
                    http.delete(f"/studies/{identifier['ID']}").raise_for_status()

    def rest(self) -> httpx.Client:
        """Return a client of its REST interface."""
        return httpx.Client(base_url=self.url, auth=(USER, PASSWORD), timeout=SECONDS, trust_env=False)

    def _answers(self) -> bool:
        try:
            with self.rest() as http:
                return http.get("/system").status_code == 200
        except httpx.TransportError:
            return False

    def _configuration(self) -> dict[str, Any]:
        return {
            "Name": "PACS",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomAet": AE_TITLE,
            "DicomPort": self.port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomModalities": self.modalities,
            "Plugins": [str(_plugin())],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "StableAge": 1,
        } | self.options


@contextmanager
def orthanc(listener_port: int = 0, **options: Any) -> Iterator[Orthanc]:
    """Run a server that knows the site as WARDROUND, with a listener at that port; `options` go into its settings."""
    site = {"AET": "WARDROUND", "Host": "127.0.0.1", "Port": listener_port or 1} | options.pop("site", {})
    folder = Path(tempfile.mkdtemp(prefix="orthanc-"))
    server = Orthanc(folder, free_port(), free_port(), {"wardround": site}, options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program() -> str:
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise OrthancMissingError(f"There is no Orthanc on this machine. {REMEDY}")
    return found


def _plugin() -> Path:
    for folder in PLUGINS:
        for found in sorted(folder.glob("libOrthancDicomWeb.so*")):
            return found
    raise OrthancMissingError(f"Orthanc's DICOMweb plugin is not on this machine. {REMEDY}")
