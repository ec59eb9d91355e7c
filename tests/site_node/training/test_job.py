import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard
from structlog.testing import capture_logs

from protocol.digest import digest_of_bytes, hex_of
from protocol.messages import Reason
from protocol.metrics import summarise
from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec, parse_study
from protocol.tensors import decode_weights, encode_weights
from site_node.candidate import Candidate, payload_path, read_candidate, read_cohort_figures
from site_node.cohort.index import index_folder
from site_node.cohort_members import CohortMembers, SpentPatients, members_path, read_members, write_spent
from site_node.opt_outs import record_opt_outs
from site_node.orders import WorkOrder, write_order
from site_node.settings import SitePaths, SiteSettings
from site_node.training.frozen_cohort import frozen_cohort
from site_node.training.job import run_order
from site_node.training.local_state import LocalState
from site_node.training.networks import initial_weights
from site_node.training.personal import DIVERGED, OWN
from tests.fakes.dicom import make_hospital
from tests.site_node.training.examples import make_study

TASK_DIGEST = "sha256:" + "7" * 64
PATIENT_PREFIX = "WARD"


def split(number: int) -> str:
    return ("train", "train", "train", "train", "validation", "test")[number // 2 % 6]


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    hospital = make_hospital(tmp_path / "images", patients=24, size=16, split=split, prefix=PATIENT_PREFIX)
    paths = SitePaths(tmp_path / "site")
    for folder in paths.folders():
        folder.mkdir(parents=True, exist_ok=True)
    paths.noise_key.write_bytes(b"n" * 32)
    index_folder([hospital.folder], paths.index)
    return SiteSettings("a", "http://hub", (hospital.folder,), hospital.labels, "", paths, Path("policy.yaml"), 1)


def run(settings: SiteSettings, kind: Any, study: StudySpec | None = None, **fields: Any) -> Candidate:
    study = study or make_study(images_per_patient=2)
    if kind in ("train", "evaluate") and read_cohort_figures(settings.paths, study.digest) is None:
        run(settings, "cohort", study)  # as the gate does, before anybody approves
    order = WorkOrder(
        kind=kind,
        task_id=fields.pop("task_id", f"task-{kind}"),
        task_digest=TASK_DIGEST,
        study=study.model_dump(mode="json", by_alias=True),
        study_digest=fields.pop("study_digest", study.digest),
        **fields,
    )
    write_order(settings.paths, order)
    run_order(settings, order.task_id)
    candidate = read_candidate(settings.paths, order.task_id)
    return candidate or Candidate(task_id="none", task_digest=TASK_DIGEST, kind="failure")


def base_blob(settings: SiteSettings, study: StudySpec) -> str:
    data = encode_weights(initial_weights(study))
    digest = digest_of_bytes(data)
    (settings.paths.blobs / hex_of(digest)).write_bytes(data)
    return digest


def train(settings: SiteSettings, study: StudySpec | None = None, **fields: Any) -> Candidate:
    study = study or make_study(images_per_patient=2)
    blob = base_blob(settings, study)
    return run(
        settings, "train", study, round=1, base_blob=blob, **{"noise_multiplier": noise_multiplier_of(study), **fields}
    )


def test_a_cohort_order_gives_the_figures_that_are_approved(settings: SiteSettings) -> None:
    run(settings, "cohort")
    figures = read_cohort_figures(settings.paths, make_study(images_per_patient=2).digest)
    assert figures is not None
    assert (figures.training_patients, figures.training_images, figures.held_out_patients) == (16, 32, 8)
    assert figures.version_zero_digest == base_blob(settings, make_study(images_per_patient=2))
    assert figures.problem is None


def members_of(settings: SiteSettings, study: StudySpec) -> CohortMembers:
    figures = read_cohort_figures(settings.paths, study.digest)
    assert figures is not None
    return read_members(settings.paths, study.digest, figures.members_digest)


def recounted(settings: SiteSettings, study: StudySpec, spent: SpentPatients) -> CohortMembers:
    """Count a cohort once more, without the patients whose budget is spent."""
    digest = write_spent(settings.paths, "cohort-again", spent)
    run(settings, "cohort", study, task_id="cohort-again", spent_digest=digest, recount=1)
    return members_of(settings, study)


def test_the_members_are_handed_over_by_pseudonym_and_are_the_same_in_every_study(settings: SiteSettings) -> None:
    one, other = make_study(), make_study(images_per_patient=2)
    run(settings, "cohort", one)
    run(settings, "cohort", other)
    members = members_of(settings, one)
    assert (len(members.training), len(members.held_out)) == (16, 8)
    assert members.training == members_of(settings, other).training
    assert PATIENT_PREFIX not in members_path(settings.paths, one.digest).read_text()
    assert members_path(settings.paths, one.digest).stat().st_mode & 0o007 == 0


def test_patients_whose_budget_is_spent_are_left_out_before_the_cohort_is_frozen(settings: SiteSettings) -> None:
    study = make_study(images_per_patient=2)
    run(settings, "cohort", study)
    first = members_of(settings, study)
    spent = SpentPatients(training=frozenset(first.training[:3]), held_out=frozenset(first.held_out[:2]))
    with capture_logs() as logs:
        members = recounted(settings, study, spent)
    assert (members.training, members.held_out) == (first.training[3:], first.held_out[2:])
    assert (frozenset(members.spent_training), frozenset(members.spent_held_out)) == (spent.training, spent.held_out)
    figures = read_cohort_figures(settings.paths, study.digest)
    assert figures is not None
    assert (figures.training_patients, figures.held_out_patients, figures.recount) == (16, 8, 1)  # who matches
    assert train(settings, study).kind == "update"
    receipt = json.loads((settings.paths.worker_receipts / "task-train.json").read_text())
    assert receipt["patients"] == 13
    assert all("patients" not in entry for entry in logs)


def test_a_held_out_patient_may_still_be_judged_on_when_only_training_is_not_covered(settings: SiteSettings) -> None:
    study = make_study(images_per_patient=2)
    members = recounted(settings, study, SpentPatients(nobody_trains=True))
    assert (len(members.training), len(members.held_out), len(members.spent_training)) == (0, 8, 16)


def test_if_everybody_is_spent_the_gate_is_told_so_and_the_log_counts_nobody(settings: SiteSettings) -> None:
    study = make_study(images_per_patient=2)
    with capture_logs() as logs:
        members = recounted(settings, study, SpentPatients(nobody_trains=True, nobody_judges=True))
    figures = read_cohort_figures(settings.paths, study.digest)
    assert figures is not None
    assert figures.problem is Reason.BUDGET_SPENT
    assert (len(members.spent_training), len(members.spent_held_out)) == (16, 8)
    assert [entry["event"] for entry in logs] == ["order done"]


def test_a_list_of_spent_patients_that_was_changed_stops_the_count(settings: SiteSettings) -> None:
    study = make_study(images_per_patient=2)
    digest = write_spent(settings.paths, "cohort-again", SpentPatients(nobody_trains=True))
    write_spent(settings.paths, "cohort-again", SpentPatients())
    run(settings, "cohort", study, task_id="cohort-again", spent_digest=digest)
    figures = read_cohort_figures(settings.paths, study.digest)
    assert figures is not None
    assert figures.problem is Reason.BAD_TASK


def test_an_initialise_order_gives_version_0(settings: SiteSettings) -> None:
    study = make_study()
    candidate = run(settings, "initialise", study)
    assert candidate.steps == ["weights", "zstandard"]
    data = zstandard.ZstdDecompressor().decompress(payload_path(settings.paths, candidate.task_id).read_bytes())
    assert data == encode_weights(initial_weights(study))


def test_a_training_order_gives_an_update_of_the_stated_size_and_digest(settings: SiteSettings) -> None:
    candidate = train(settings)
    payload = payload_path(settings.paths, candidate.task_id).read_bytes()
    assert (candidate.kind, candidate.steps) == ("update", ["difference", "zstandard"])
    assert (candidate.payload_bytes, candidate.payload_digest) == (len(payload), digest_of_bytes(payload))
    update = decode_weights(zstandard.ZstdDecompressor().decompress(payload))
    assert update.keys() == initial_weights(make_study()).keys()


def test_an_evaluation_order_gives_histograms_of_held_out_patients(settings: SiteSettings) -> None:
    study = make_study()
    candidate = run(settings, "evaluate", study, round=1, base_blob=base_blob(settings, study))
    assert candidate.histograms is not None
    assert {name: summarise(h).patients for name, h in candidate.histograms.items()} == {"validation": 4, "test": 4}


def test_a_site_whose_personal_model_diverged_says_so_and_judges_no_other(settings: SiteSettings) -> None:
    study = changed(personal={"ditto": 0.5})
    blob = base_blob(settings, study)
    run(settings, "cohort", study, task_id="count")
    LocalState(settings.paths.local_state, study.digest, 1).keep(OWN, DIVERGED)
    candidate = run(settings, "evaluate", study, round=1, base_blob=blob)
    assert (candidate.kind, candidate.reason) == ("failure", Reason.PERSONAL_MODEL_DIVERGED)


def test_a_task_run_again_after_a_crash_gives_the_same_update(settings: SiteSettings) -> None:
    first = train(settings, task_id="first")
    again = train(settings, task_id="again")  # same task digest: the name of the file does not key the noise
    assert first.payload_digest == again.payload_digest


def test_a_frozen_cohort_does_not_see_later_labels(settings: SiteSettings) -> None:
    run(settings, "cohort", task_id="cohort-1")
    lines = settings.labels.read_text().splitlines()
    settings.labels.write_text("\n".join(lines[:20]))
    first = train(settings)
    assert first.kind == "update"
    receipt = json.loads((settings.paths.worker_receipts / "task-train.json").read_text())
    assert (receipt["patients"], receipt["images"]) == (16, 32)


def test_progress_is_told_in_the_fixed_vocabulary(settings: SiteSettings) -> None:
    train(settings)
    progress = json.loads((settings.paths.progress / "task-train.json").read_text())
    assert progress == {"activity": "training", "fraction": 1}


def changed(**parts: Mapping[str, Any]) -> StudySpec:
    document = make_study().model_dump(mode="json", by_alias=True)
    return parse_study({**document, **{name: {**document[name], **part} for name, part in parts.items()}})


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        (changed(network={"name": "vit"}), Reason.UNKNOWN_NETWORK),
        (changed(network={"arguments": {"foo": 1}}), Reason.UNKNOWN_NETWORK),
        (changed(personal={"keep": ["nosuch"]}), Reason.UNKNOWN_TENSOR),
        (changed(personal={"keep": ["*"]}), Reason.UNKNOWN_TENSOR),
        (changed(label={"column": "absent"}), Reason.LABELS_UNUSABLE),
        (changed(cohort={"modality": ["MR"]}), Reason.TOO_FEW_PATIENTS),
    ],
)
def test_a_cohort_that_cannot_be_made_is_a_problem_with_a_reason(
    settings: SiteSettings, study: StudySpec, reason: Reason
) -> None:
    run(settings, "cohort", study)
    figures = read_cohort_figures(settings.paths, study.digest)
    assert figures is not None
    assert figures.problem == reason
    assert figures.training_patients == 0


def test_a_site_that_does_not_train_tells_its_administrator_why_and_what_to_do(settings: SiteSettings) -> None:
    rows = settings.labels.read_text().splitlines()
    place = rows[0].split(",").index("label")
    cells = [row.split(",") for row in rows[1:]]
    lines = [rows[0], *(",".join([*row[:place], "0", *row[place + 1 :]]) for row in cells)]
    settings.labels.write_text("\n".join(lines) + "\n")
    with capture_logs() as logs:
        run(settings, "cohort")
    figures = read_cohort_figures(settings.paths, make_study(images_per_patient=2).digest)
    assert figures is not None
    assert (figures.training_patients, figures.held_out_patients, figures.problem) == (0, 8, None)
    [told] = [entry for entry in logs if entry["log_level"] == "warning"]
    assert set(told) == {"event", "log_level", "site", "study", "why"}, "no figure about patients is logged"
    assert told["site"] == settings.name
    assert "all of one class" in told["why"]
    assert "Check the label column" in told["why"]
    assert "label.patient_label (any:" in told["why"]


def test_labels_without_images_are_told_with_the_remedy_and_no_small_number(settings: SiteSettings) -> None:
    rows = settings.labels.read_text().splitlines()
    place = rows[0].split(",").index("sop_instance_uid")
    cells = rows[1].split(",")
    settings.labels.write_text("\n".join([*rows, ",".join([*cells[:place], "1.2.3", *cells[place + 1 :]])]) + "\n")
    with capture_logs() as logs:
        run(settings, "cohort")
    [told] = [entry for entry in logs if entry["event"] == "left out of the study"]
    assert set(told) == {"event", "log_level", "site", "study", "why"}
    assert told["why"].startswith("fewer than 10 rows of labels.csv: no usable image")
    assert "wardround site index" in told["why"]
    assert "1.2.3" not in str(told)


def test_a_failed_job_s_log_names_the_site(settings: SiteSettings) -> None:
    settings.labels.unlink()
    with capture_logs() as logs:
        run(settings, "cohort")
    [failure] = [entry for entry in logs if entry["log_level"] == "error"]
    assert failure["site"] == settings.name


def test_a_missing_base_is_a_failure(settings: SiteSettings) -> None:
    candidate = run(settings, "train", round=1, base_blob="sha256:" + "0" * 64, noise_multiplier=1.0)
    assert (candidate.kind, candidate.reason) == ("failure", Reason.BASE_UNAVAILABLE)


def test_a_damaged_base_is_a_failure(settings: SiteSettings) -> None:
    blob = base_blob(settings, make_study())
    (settings.paths.blobs / hex_of(blob)).write_bytes(b"other bytes")
    candidate = run(settings, "train", round=1, base_blob=blob, noise_multiplier=1.0)
    assert (candidate.kind, candidate.reason) == ("failure", Reason.BASE_UNAVAILABLE)


def test_private_training_without_noise_is_refused(settings: SiteSettings) -> None:
    assert train(settings, noise_multiplier=None).reason == Reason.BAD_TASK


def test_an_order_for_another_study_than_it_names_is_refused(settings: SiteSettings) -> None:
    candidate = run(settings, "initialise", study_digest="sha256:" + "0" * 64)
    assert (candidate.kind, candidate.reason) == ("failure", Reason.BAD_TASK)


def test_a_missing_noise_key_is_a_failure(settings: SiteSettings) -> None:
    settings.paths.noise_key.unlink()
    assert train(settings).reason == Reason.INTERNAL


def test_without_an_order_nothing_is_done(settings: SiteSettings) -> None:
    run_order(settings, "nobody-asked")
    assert read_candidate(settings.paths, "nobody-asked") is None


def test_neither_log_nor_handover_names_a_patient_or_a_file(
    settings: SiteSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings, "cohort")
    train(settings)
    for image in settings.images[0].rglob("*.dcm"):
        image.unlink()
    for cached in settings.paths.cache.iterdir():
        cached.unlink()
    failed = train(settings, task_id="images-gone")
    assert failed.kind == "failure"
    said = capsys.readouterr()
    handed = "".join(path.read_text() for path in settings.paths.handover.rglob("*.json"))
    for text in (said.out, said.err, handed):
        assert PATIENT_PREFIX not in text
        assert ".dcm" not in text
        assert "2.25." not in text


def evaluated_without(settings: SiteSettings, gone: tuple[Any, ...], **evaluation: Any) -> Candidate:
    """Evaluate for a study after all patients of some splits have opted out of it."""
    document = make_study(images_per_patient=2).model_dump(mode="json", by_alias=True)
    document["evaluation"] |= evaluation
    study = parse_study(document)
    run(settings, "cohort", study)
    frozen = frozen_cohort(settings.paths.frozen_cohorts, study.digest)
    record_opt_outs(settings.paths.opt_outs, [who.key for split in gone for who in frozen.of(split)], now=1.0)
    return run(settings, "evaluate", study, round=1, base_blob=base_blob(settings, study))


@pytest.mark.parametrize("gone", [("test",), ("validation", "test"), ("train", "validation", "test")])
def test_nobody_sees_the_last_held_out_patient_opt_out_where_counts_are_noised(
    settings: SiteSettings, gone: tuple[Any, ...]
) -> None:
    candidate = evaluated_without(settings, gone, noise_epsilon=0.5)
    assert (candidate.kind, candidate.reason) == ("evaluation", None)
    assert candidate.histograms is not None
    assert set(candidate.histograms) == {"validation", "test"}


def test_un_noised_the_last_held_out_patient_who_opts_out_is_a_refusal(settings: SiteSettings) -> None:
    candidate = evaluated_without(settings, ("validation", "test"))
    assert (candidate.kind, candidate.reason) == ("failure", Reason.NO_HELD_OUT_PATIENTS)


def test_an_order_s_weights_of_classes_train_as_stated_ones_do_and_otherwise_than_none(settings: SiteSettings) -> None:
    plain = make_study(images_per_patient=2)
    stated = plain.model_copy(update={"label": plain.label.model_copy(update={"weights": [0.625, 2.5]})})
    by_order = train(settings, plain, task_id="by-order", class_weights=[0.625, 2.5])
    assert by_order.payload_digest == train(settings, stated, task_id="stated").payload_digest
    assert by_order.payload_digest != train(settings, plain, task_id="plain").payload_digest
