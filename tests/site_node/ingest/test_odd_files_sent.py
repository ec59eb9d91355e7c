"""The odd-file set of the development data, sent by a modality's storescu: indexed, or quarantined with a reason."""

from collections import Counter
from pathlib import Path

import pydicom
import pytest

from site_node.cohort.index import index_folder
from site_node.dicom.quiet import quiet
from site_node.ingest import reception
from site_node.listen_command import received_so_far
from site_node.settings import load_settings
from tests.fakes.dcmtk import Modality
from tests.fakes.raw_modality import raw_modality
from tests.fakes.running_listener import make_site, running_listener

ODD_FILES = Path(__file__).parents[4] / "shared" / "data" / "odd_dicom"
# storescu sends what it can read as DICOM and what has a name. The rest never leaves the modality, for these reasons:
NEVER_SENT = {
    "No SOP Class or Instance UID",  # 28: contents of media (DICOMDIR), and files without an identity
    "I/O suspension or premature end of stream",  # 5: cut short
    *("Invalid stream", "Invalid tag", "Sequence Delimitation Item missing"),  # 3: damaged
    "Store Failed",  # 3: in transfer syntaxes that are younger than Debian's dcmtk; sent by another modality below
}


@pytest.mark.shared
@pytest.mark.timeout(600)
def test_every_odd_file_that_is_sent_ends_indexed_or_quarantined_with_its_reason(tmp_path: Path) -> None:
    files = [p for p in sorted(ODD_FILES.rglob("*")) if p.is_file() and p.suffix not in (".csv", ".md")]
    paths = make_site(tmp_path)
    with running_listener(paths) as running:
        sending = Modality(running.port).send_as_they_are(files, tmp_path / "profile.cfg")
        young = [path for path, why in sending.never_sent.items() if why == "Store Failed"]
        statuses = dict(sending.statuses)
        with raw_modality(running.port, sorted({_kind(path) for path in young})) as modality:
            statuses |= {path: modality.send_file(path) for path in young}
        assert running.stop() == 0
        associations = [line for line in running.lines() if line["event"] == "association_ended"]

    assert set(sending.never_sent.values()) <= NEVER_SENT
    assert len(sending.statuses) + len(sending.never_sent) == len(files) == 371
    assert len(sending.statuses) >= 330
    assert len(associations) == 2  # all of storescu's over one: no bad object ended it

    found = received_so_far(load_settings(paths.root))
    counts, quarantine = found["counts"], found["quarantine"]
    answered = Counter("taken" if status == 0 else "refused" for status in statuses.values())
    assert answered["taken"] == counts["stored"] + counts["repeated"]
    assert answered["refused"] == counts["quarantined"] == sum(found["reasons"].values())
    assert set(found["reasons"]) == {reception.OTHER_BYTES, reception.OTHER_SYNTAX}  # the set holds copies on purpose
    folder = Path(found["quarantine_folder"])
    assert all((folder / entry["file"]).stat().st_size > 0 for entry in quarantine)

    report = index_folder([paths.received], paths.index)
    assert report.files == counts["stored"] == report.indexed + len(report.quarantined)
    assert report.companions == 0
    assert report.indexed >= 180
    assert all(entry.reason for entry in report.quarantined)


@pytest.mark.shared
def test_what_dcmtk_would_not_send_of_it_is_sent_raw_and_ends_the_same_way(tmp_path: Path) -> None:
    """Bytes of damaged files under made-up names: each is refused with a reason, or stored for the index to judge."""
    files = [p for p in sorted(ODD_FILES.rglob("*")) if p.is_file() and p.suffix not in (".csv", ".md")]
    paths = make_site(tmp_path)
    with running_listener(paths) as running, raw_modality(running.port) as modality:
        statuses = {path: modality.send(path.read_bytes()[-20_000:], f"1.2.{n}") for n, path in enumerate(files, 1)}
        assert modality.association.is_established
        assert running.stop() == 0
    found = received_so_far(load_settings(paths.root))
    assert set(statuses.values()) <= {0, 0xC000, 0xA900}
    assert found["counts"]["stored"] == list(statuses.values()).count(0)
    assert found["counts"]["quarantined"] == len(files) - found["counts"]["stored"]
    assert all(entry["reason"] for entry in found["quarantine"])
    report = index_folder([paths.received], paths.index)
    assert report.files == report.indexed + len(report.quarantined)


def _kind(path: Path) -> tuple[str, str]:
    with quiet():
        meta = pydicom.filereader.read_file_meta_info(path)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
