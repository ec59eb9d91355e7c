"""The demo's study: proposed, followed to its end, or found as an earlier run left it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from compose.errors import DemoError
from compose.federation import Federation
from compose.layout import DemoLayout, write_json
from compose.person import HubSilentError
from compose.processes import Supervisor
from compose.report import ProcessEntry, build_report, write_report
from compose.snapshot import ENDED, Snapshot, snapshot_of
from compose.terminal import Terminal
from protocol.study import StudySpec

LOOK_SECONDS = 0.5
SILENT_NOTE = "The hub does not answer; it is being started again."


class DemoStudy:
    """One study of a running federation."""

    def __init__(self, layout: DemoLayout, supervisor: Supervisor, federation: Federation, terminal: Terminal) -> None:
        self._layout = layout
        self._supervisor = supervisor
        self._federation = federation
        self._terminal = terminal
        self._researcher = federation.person("researcher")

    def choose(self, wanted: StudySpec, *, named: bool) -> str:
        """Return the digest of the study to follow: the one that is there, or `wanted`, proposed now.

        `named` says that the person asked for `wanted`; else whatever study is there goes on.
        Raises: DemoError if another study is under way, or the hub refuses the new one.
        """
        known = {study["digest"]: study for study in self._patiently("/v1/studies")}
        if wanted.digest in known:
            return self._found(wanted.digest, known[wanted.digest]["state"])
        unfinished = [study for study in known.values() if study["state"] not in ENDED]
        if unfinished and named:
            raise DemoError(
                f"{self._layout.root} holds the unfinished study '{unfinished[0]['name']}'. Let it end first (run the "
                "demo without --study and --set), name another folder with --dir, or start anew with --fresh."
            )
        remembered = self._layout.state().study_digest
        if known and not named:
            digest = remembered if remembered is not None and remembered in known else next(iter(known))
            return self._found(digest, known[digest]["state"])
        self._terminal.say(
            f"Proposing the study '{wanted.title or wanted.name}' to {len(self._federation.sites)} hospitals"
        )
        sites = ",".join(self._federation.sites)
        self._researcher.post(f"/v1/studies?sites={sites}", content=wanted.canonical_bytes())
        return self._follow_from_now(wanted.digest)

    def follow(self, digest: str) -> Snapshot:
        """Show the study's progress until it has ended. Raises: ServiceError, Interrupted."""
        last: Snapshot | None = None
        while last is None or not last.ended:
            try:
                last = self.look(digest)
                self._terminal.show(last)
            except HubSilentError:
                if last is not None:
                    self._terminal.show(last, SILENT_NOTE)
            list_processes(self._layout, self._supervisor)
            self._supervisor.pause(LOOK_SECONDS)
        self._terminal.close_live()
        return last

    def look(self, digest: str) -> Snapshot:
        """Return the study as it stands. Raises: HubSilentError."""
        get = self._researcher.get
        return snapshot_of(get(f"/v1/studies/{digest}"), get(f"/v1/studies/{digest}/rounds"), get("/v1/sites"))

    def report(self, digest: str) -> None:
        """Write report.json; a hub that is being restarted is waited for."""
        while True:
            try:
                write_report(self._layout.report, self._report(digest))
                return
            except (HubSilentError, httpx.TransportError):
                self._supervisor.pause(LOOK_SECONDS)

    def _report(self, digest: str) -> dict[str, Any]:
        self._researcher.get("/v1/me")  # signs in again if the token is old
        folders = {name: self._layout.site(name) for name in self._federation.sites}
        processes = [ProcessEntry(p.role, p.pid, p.command) for p in self._supervisor.processes()]
        return build_report(self._researcher.client, digest, folders, noise="cryptographic", processes=processes)

    def close(self) -> None:
        """Close the connection to the hub."""
        self._researcher.close()

    def _found(self, digest: str, state: str) -> str:
        words = "It has ended" if state in ENDED else "It goes on where it was"
        self._terminal.say(f"{self._layout.root} holds a study already: {state}. {words}; --fresh starts anew.")
        return self._follow_from_now(digest)

    def _follow_from_now(self, digest: str) -> str:
        self._layout.remember(replace(self._layout.state(), study_digest=digest))
        return digest

    def _patiently(self, path: str) -> Any:
        while True:
            try:
                return self._researcher.get(path)
            except HubSilentError:
                self._supervisor.pause(LOOK_SECONDS)


def demo_hospitals(folder: Path) -> dict[str, Path]:
    """Return the demo's hospitals: each folder beside the study is one, named like it.

    Raises: DemoError if there is none.
    """
    found = {path.name: path for path in sorted((folder / "hospitals").glob("*")) if (path / "labels.csv").exists()}
    if not found:
        raise DemoError(
            f"{folder / 'hospitals'} holds no hospital (a folder with labels.csv). Install Wardround again."
        )
    return found


def addresses(federation: Federation) -> Sequence[str]:
    """Return the lines that say where the pages are and who can sign in."""
    lines = [f"Web pages   {federation.ui_url}", f"Hub API     {federation.hub_url}/v1/openapi.json"]
    if federation.new_people:
        lines += [f"Sign in as  {role:<11} password {password}" for role, password in federation.people.items()]
    return lines


def list_processes(layout: DemoLayout, supervisor: Supervisor) -> None:
    """Bring processes.json up to date, for people who want to look or to kill one and watch it come back."""
    entries = [{"role": p.role, "pid": p.pid, "restarts": p.restarts} for p in supervisor.processes()]
    write_json(layout.processes, {"processes": entries})
