"""Real modalities for tests: dcmtk's programs (`storescu`, `echoscu`, ...), and what each file's sending came to.

Sent with a profile that proposes each pair of SOP class and transfer syntax by itself, a file goes out as it lies
there.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from site_node.dicom.quiet import quiet

REMEDY = "Install Debian's package: apt-get install dcmtk (`make pacs` does)."
SECONDS = 240
MOST_CONTEXTS = 128
IMPLICIT = "1.2.840.10008.1.2"


class DcmtkMissingError(Exception):
    """dcmtk's programs are not on this machine."""


def program_of(name: str) -> str:
    """Return where one of dcmtk's programs lies. Those of Python environments are pynetdicom's, of the same names.

    Raises: DcmtkMissingError if it is not there.
    """
    folders = os.get_exec_path()
    outside = [folder for folder in folders if not (Path(folder).parent / "pyvenv.cfg").exists()]
    found = shutil.which(name, path=os.pathsep.join(outside))
    if found is None:
        raise DcmtkMissingError(f"There is no {name} on this machine. {REMEDY}")
    return found


@dataclass(frozen=True)
class Tls:
    """What a modality shows and trusts."""

    key: Path
    certificate: Path
    authority: Path

    def options(self) -> tuple[str, ...]:
        """Return them as dcmtk's options."""
        return ("+tls", str(self.key), str(self.certificate), "+cf", str(self.authority))


@dataclass(frozen=True)
class Modality:
    """One that calls a listener on this machine."""

    port: int
    ae_title: str = "CT1"
    called: str = "WARDROUND"
    tls: Tls | None = None

    def echo(self) -> bool:
        """Tell whether C-ECHO is answered with success."""
        return self.run("echoscu").returncode == 0

    def send(self, files: Sequence[Path], *options: str) -> "Sending":
        """Send files over one association, also past those that are refused."""
        done = self.run("storescu", "-v", "-nh", *options, files=files)
        return Sending.told(files, done.stdout + done.stderr, done.returncode)

    def send_as_they_are(self, files: Sequence[Path], profile: Path) -> "Sending":
        """Send files over one association, each in its own transfer syntax."""
        profile.write_text(_profile(files), encoding="ascii")
        return self.send(files, "-xf", str(profile), "ALL")

    def run(self, program: str, *options: str, files: Iterable[Path] = ()) -> "subprocess.CompletedProcess[str]":
        """Run one of dcmtk's programs towards the listener or the PACS."""
        tls = self.tls.options() if self.tls else ()
        titles = ("-aet", self.ae_title, "-aec", self.called)
        command = [program_of(program), *options, *tls, *titles, "127.0.0.1", str(self.port), *map(str, files)]
        return subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", timeout=SECONDS)


@dataclass(frozen=True)
class Sending:
    """The status that each file was answered with; `never_sent` has why the modality itself did not send a file."""

    statuses: dict[Path, int]
    never_sent: dict[Path, str]
    returncode: int

    @classmethod
    def told(cls, files: Sequence[Path], output: str, returncode: int) -> "Sending":
        """Read what storescu printed."""
        by_name = {str(path): path for path in files}
        statuses: dict[Path, int] = {}
        refused: dict[Path, str] = {}
        sending: Path | None = None
        for line in output.splitlines():
            if bad := re.match(r"E: Bad DICOM file: (.*?): ([^:]*)$", line):
                refused[by_name[bad[1]]] = bad[2].strip()
            elif nameless := re.match(r"E: (No SOP Class or Instance UID) in file: (.*)$", line):
                refused[by_name[nameless[2]]] = nameless[1]
            elif begun := re.match(r"I: Sending file: (.*)$", line):
                sending = by_name[begun[1]]
            elif sending and (failed := re.match(r"E: (?:Store Failed|No presentation context)", line)):
                refused[sending] = failed[0][3:]
            elif sending and (answer := re.match(r"I: Received Store Response \((.*)\)$", line)):
                statuses[sending] = _status(answer[1])
        return cls(statuses, refused, returncode)


def _status(words: str) -> int:
    number = re.search(r"0x([0-9a-fA-F]+)", words)
    known = {"Success": 0, "Refused: OutOfResources": 0xA700, "Error: DataSetDoesNotMatchSOPClass": 0xA900}
    return int(number[1], 16) if number else known.get(words, 0xC000 if "CannotUnderstand" in words else -1)


def _profile(files: Iterable[Path]) -> str:
    pairs = sorted({pair for path in files if (pair := _pair(path))})
    if len(pairs) > MOST_CONTEXTS:
        raise ValueError(f"{len(pairs)} pairs of SOP class and transfer syntax: an association takes {MOST_CONTEXTS}")
    syntaxes = sorted({syntax for _, syntax in pairs})
    lines = ["[[TransferSyntaxes]]"]
    for number, syntax in enumerate(syntaxes):
        lines += [f"[S{number}]", f"TransferSyntax1 = {syntax}"]
    lines += ["[[PresentationContexts]]", "[C]"]
    for number, (sop_class, syntax) in enumerate(pairs, 1):
        lines.append(f"PresentationContext{number} = {sop_class}\\S{syntaxes.index(syntax)}")
    return "\n".join([*lines, "[[Profiles]]", "[ALL]", "PresentationContexts = C", ""])


def _pair(path: Path) -> tuple[str, str] | None:
    try:
        with quiet():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID"])
            sop_class = str(dataset.get("SOPClassUID") or "")
            return (sop_class, str(dataset.file_meta.get("TransferSyntaxUID") or IMPLICIT)) if sop_class else None
    except Exception:  # no DICOM, or a damaged one: storescu says so itself
        return None
