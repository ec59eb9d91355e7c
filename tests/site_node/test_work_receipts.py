"""Receipts of the worker's jobs: signed, checked, shown without small numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from site_node.cli import app
from site_node.site_secrets import read_noise_key
from site_node.work_receipts import KeptReceipt, WorkReceipt, kept_receipts, receipt_as_json, write_receipt
from tests.fakes.gated_site import GatedSite

DIGEST = "sha256:" + "1" * 64


def receipt(number: int = 1, **changes: Any) -> WorkReceipt:
    fields: dict[str, Any] = {
        **{"task_id": f"task-{number}", "study_digest": DIGEST, "study": "chest", "round": number, "kind": "train"},
        **{"at": float(number), "seconds": 2.0, "matched": 100, "patients": 100, "images": 180},
    }
    return WorkReceipt.model_validate(fields | changes)


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path)


def keep(site: GatedSite, *receipts: WorkReceipt) -> bytes:
    key = read_noise_key(site.paths.noise_key)
    for one in receipts:
        write_receipt(site.paths, one, key)
    return key


def run(site: GatedSite, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["receipts", str(site.paths.root), *words])
    return result.exit_code, result.output


def test_receipts_come_back_in_their_order_with_their_signatures_checked(site: GatedSite) -> None:
    key = keep(site, receipt(2), receipt(1), receipt(2, patients=90))
    assert list(kept_receipts(site.paths, key)) == [
        KeptReceipt("task-1", receipt(1)),
        KeptReceipt("task-2", receipt(2, patients=90)),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"patients":100', '"patients":99'),
        lambda text: text.replace('"study":"chest"', '"study":"other"'),
        lambda text: text[:40],
        lambda text: "{}",
    ],
)
def test_a_receipt_that_was_changed_is_told_and_ends_the_command_in_failure(site: GatedSite, change: Any) -> None:
    key = keep(site, receipt())
    path = site.paths.worker_receipts / "task-1.json"
    path.write_text(change(path.read_text()))
    assert list(kept_receipts(site.paths, key)) == [KeptReceipt("task-1", None)]
    status, output = run(site)
    assert (status, "NOT SIGNED" in output) == (1, True)


def test_another_site_s_receipt_is_not_signed_here(site: GatedSite) -> None:
    keep(site, receipt())
    assert [kept.receipt for kept in kept_receipts(site.paths, b"x" * 32)] == [None]


@pytest.mark.parametrize(
    ("matched", "patients", "share"),
    [
        (100, 100, "nine tenths or more"), (100, 99, "nine tenths or more"), (100, 89, "half or more"),
        (100, 49, "LESS THAN HALF"), (0, 0, ""),
    ],
)  # fmt: skip
def test_how_much_was_used_is_said_in_a_word(matched: int, patients: int, share: str) -> None:
    assert receipt(matched=matched, patients=patients).share == share


@pytest.mark.parametrize(
    ("matched", "patients", "numbers", "share"),
    [
        (104, 104, (100, None, None), "nine tenths or more"), (104, 103, (100, None, None), "nine tenths or more"),
        (100, 95, (100, None, None), "nine tenths or more"), (9, 9, (None, None, None), ""),
        (30, 9, (None, None, None), ""), (100, 80, (100, 80, 180), "half or more"),
        (100, 47, (100, 40, 180), "LESS THAN HALF"),
    ],
)  # fmt: skip
def test_few_patients_used_or_left_out_are_not_told(
    matched: int, patients: int, numbers: tuple[int | None, ...], share: str
) -> None:
    found = receipt_as_json(KeptReceipt("task-1", receipt(matched=matched, patients=patients)), 10)
    assert (found["matched"], found["patients"], found["images"], found["share"]) == (*numbers, share)


def test_two_rounds_between_which_one_patient_opted_out_look_alike() -> None:
    for patients in ((100, 99), (88, 87)):
        one, other = (receipt_as_json(KeptReceipt("task", receipt(patients=number)), 10) for number in patients)
        assert one == other


SKIPPED: dict[str, Any] = {
    "budget-spent": {"patients": 23, "images": 0},
    "opted-out": {"patients": 4, "images": 12},
    "unreadable": {"images": 31},
    "orphans": {"images": 3},
}


def test_who_and_what_was_skipped_is_told_by_reason_in_tens_and_few_are_not() -> None:
    used = receipt(matched=100, patients=73, images=140, images_matched=152, skipped=SKIPPED)
    found = receipt_as_json(KeptReceipt("task-1", used), 10)
    assert found["skipped"] == {
        "budget-spent": {"patients": 20, "images": None},
        "unreadable": {"patients": None, "images": 30},
    }
    assert found["images_matched"] == 150


def test_the_command_says_why_patients_and_files_were_skipped(site: GatedSite) -> None:
    keep(site, receipt(matched=100, patients=73, images=140, images_matched=152, skipped=SKIPPED))
    line = run(site)[1]
    assert "70 or more with 140 or more images were used of 150 or more, 2 s" in line
    assert "; patients skipped: 20 or more with a spent budget;" in line
    assert "files or rows left out when counted: unreadable 30 or more" in line
    assert "opted out" not in line


def test_where_few_were_used_no_reason_has_a_number() -> None:
    few = receipt(matched=100, patients=9, skipped=SKIPPED)
    assert receipt_as_json(KeptReceipt("task-1", few), 10)["skipped"] == {}


def test_the_command_lists_rounds_and_failures(site: GatedSite) -> None:
    assert "No job has ended" in run(site)[1]
    keep(site, receipt(1), receipt(2, failed=True, reason="disk-full", matched=0, patients=0, images=0))
    keep(site, receipt(3, patients=40, study="knee", study_digest="sha256:" + "2" * 64))
    status, output = run(site)
    assert status == 0
    assert "round   1  train      nine tenths or more of the approved cohort, 100 or more patients, 2 s" in output
    assert "FAILED: disk-full; nothing was used" in output
    used = "100 or more patients, of whom 40 or more with 180 or more images were used"
    assert f"LESS THAN HALF of the approved cohort, {used}" in output
    assert len(json.loads(run(site, "--study", "knee", "--json")[1])) == 1
    assert len(run(site, "--study", "1111")[1].splitlines()) == 2
