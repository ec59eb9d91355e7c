"""`wardround site check` as a job of the reading API: one at a time, in a process of its own, its report kept.

It may take minutes (it takes steps of training) and as much memory as a round: neither is this process's.

    SITE/worker/reading/readiness/<study hex>.json      the last report, when it was made, and for whom
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol.digest import canonical_json, hex_of
from protocol.study import StudySpec
from site_node.durable import write_durably
from site_node.errors import SettingsError
from site_node.reading.rooms import reading_folder
from site_node.settings import SitePaths

MOST_SECONDS = 3600.0
FAILED = "It gave no report. Run `wardround site check` as the worker's user: it says why."
Check = Callable[[Path, Path, bool], dict[str, Any] | None]


@dataclass(frozen=True)
class ReadinessJobs:
    """The reports of a site and the one that is being made.

    `check` is given the site, the study's file, and whether to measure the pace of training; None is no report.
    """

    paths: SitePaths
    check: Check = field(default_factory=lambda: check_apart)
    clock: Callable[[], float] = time.time
    _at_work: threading.Lock = field(default_factory=threading.Lock)
    _now: dict[str, float] = field(default_factory=dict)

    def report_of(self, study_digest: str) -> dict[str, Any]:
        """Return how a study's report stands: none, looking, failed or done; with the last report and its time."""
        path = self._path(study_digest)
        kept: dict[str, Any] = {"state": "none", "report": None, "made_at": None, "asked_by": None}
        if path.exists():
            kept |= json.loads(path.read_bytes())
        since = self._now.get(study_digest)
        return kept | ({"state": "looking", "since": since} if since is not None else {})

    def ask(self, study: StudySpec, person: str, *, measures: bool) -> threading.Thread:
        """Begin to look whether this site is ready for a study; return the thread that waits for it.

        Raises: SettingsError while another study is looked at.
        """
        if not self._at_work.acquire(blocking=False):
            raise SettingsError("Another study is being looked at.", "Ask again when its report is there.")
        self._now[study.digest] = self.clock()
        waiting = threading.Thread(target=self._look, args=(study, person, measures), daemon=True)
        waiting.start()
        return waiting

    def _look(self, study: StudySpec, person: str, measures: bool) -> None:
        path = self._path(study.digest)
        asked = path.with_suffix(".study")
        result: dict[str, Any] = {"state": "failed", "report": None, "explanation": FAILED}
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(asked, canonical_json(study.model_dump(mode="json", by_alias=True)), mode=0o600)
            report = self.check(self.paths.root, asked, measures)
            if report is not None and report.get("study_digest") == study.digest:
                result = {"state": "done", "report": report, "explanation": ""}
        finally:
            written = {**result, "made_at": self.clock(), "asked_by": person}
            write_durably(path, json.dumps(written, indent=1).encode(), mode=0o600)
            asked.unlink(missing_ok=True)
            self._now.pop(study.digest, None)
            self._at_work.release()

    def _path(self, study_digest: str) -> Path:
        return reading_folder(self.paths) / "readiness" / f"{hex_of(study_digest)}.json"


def check_apart(site: Path, study: Path, measures: bool) -> dict[str, Any] | None:
    """Run `wardround site check` in a process of its own and return its report, None if there is none."""
    command = [sys.executable, "-m", "site_node.cli", "check", str(site), str(study), "--json"]
    try:
        ran = subprocess.run(  # its output is not logged: warnings of libraries may quote headers
            [*command, *([] if measures else ["--no-measure"])], capture_output=True, timeout=MOST_SECONDS, check=False
        )
        report: dict[str, Any] = json.loads(ran.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return report
