"""What sites tell of their readiness: kept once, a few for each study, shown beside the hospital."""

from typing import Any

import pytest

from hub.errors import NotFoundError, RequestError, StateError
from hub.rounds.messages import receive
from hub.services import Services
from hub.storage import audit_stores, stores
from hub.studies import coordinator
from hub.studies.readiness import record_readiness
from hub.studies.views import study_view
from protocol.messages import Receipt, expect
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_events
from protocol.readiness import ReadinessReport, expected_patients
from protocol.signing import open_envelope
from protocol.study import StudySpec, parse_study
from tests.fakes.hospital import Hospital
from tests.hub.conftest import specification

pytestmark = pytest.mark.both_databases


def report_of(hospital: Hospital, spec: StudySpec, **changes: Any) -> ReadinessReport:
    told: dict[str, Any] = {
        "site": hospital.name,
        "study_digest": spec.digest,
        "number": 1,
        "policy": "allows",
        "tasks": "taken",
        "train_hours": 70,
        "epsilon": None,
        "noise_multiplier": None,
        "labels": "found",
        "class_names": "every",
        "decoders": "all",
        "device": "gpu",
        "disk": "suffices",
        "memory": "too-small",
        "minutes_a_round": 20,
        "stand_ins": expected_patients(spec),
    }
    return ReadinessReport.model_validate(told | changes)


def take(services: Services, hospital: Hospital, report: ReadinessReport) -> Receipt:
    receipt = receive(services, hospital.name, hospital.signed(report))
    return expect(open_envelope(receipt, services.key.public), Receipt)


def shown(services: Services, digest: str) -> dict[str, Any]:
    with services.reading() as session:
        return {site["site"]: site["readiness"] for site in study_view(session, stores.study(session, digest))["sites"]}


def test_the_last_report_of_each_hospital_is_shown_and_each_is_audited(
    services: Services, hospitals: list[Hospital], spec: StudySpec
) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    anna, bela, clara = hospitals
    assert shown(services, digest) == dict.fromkeys((anna.name, bela.name, clara.name))
    assert take(services, anna, report_of(anna, spec)).accepted
    assert take(services, anna, report_of(anna, spec, number=2, memory="suffices")).accepted
    assert take(services, bela, report_of(bela, spec, minutes_a_round="longer")).accepted
    found = shown(services, digest)
    assert found[anna.name]["memory"] == "suffices"
    assert found[anna.name]["number"] == 2
    assert found[bela.name]["minutes_a_round"] == "longer"
    assert found[clara.name] is None
    assert set(found[anna.name]) == set(ReadinessReport.model_fields) - {"schema_", "site", "study_digest"} | {
        "received_at"
    }
    with services.reading() as session:
        entries = [one for one in audit_stores.entries(session, 0, 1000) if "study.readiness" in one.entry.decode()]
    assert len(entries) == 3


def test_the_same_report_again_changes_nothing_and_another_of_its_number_is_refused(
    services: Services, hospitals: list[Hospital], spec: StudySpec
) -> None:
    coordinator.propose(services, spec, [], "researcher")
    anna = hospitals[0]
    take(services, anna, report_of(anna, spec))
    with services.reading() as session:
        before = audit_stores.head(session)
    assert take(services, anna, report_of(anna, spec)).accepted
    with services.reading() as session:
        assert audit_stores.head(session) == before
    other = report_of(anna, spec, disk="too-small")
    with pytest.raises(StateError, match="Another report"):
        record_readiness(services, other, anna.signed(other))
    assert not take(services, anna, other).accepted


def test_only_an_invited_site_tells_and_only_while_the_study_is_open(
    services: Services, hospitals: list[Hospital], spec: StudySpec
) -> None:
    anna, bela, clara = hospitals
    digest = coordinator.propose(services, spec, [anna.name, clara.name], "researcher")
    foreign = report_of(bela, spec)
    with pytest.raises(NotFoundError, match="not invited"):
        record_readiness(services, foreign, bela.signed(foreign))
    coordinator.stop(services, digest, "researcher")
    late = report_of(anna, spec)
    with pytest.raises(StateError, match="has ended"):
        record_readiness(services, late, anna.signed(late))


@pytest.mark.parametrize("changes", [{"noise_multiplier": 3.0}, {"stand_ins": 7}, {"epsilon": 1.0}])
def test_a_report_of_other_terms_than_the_study_s_is_refused(
    services: Services, hospitals: list[Hospital], spec: StudySpec, changes: dict[str, Any]
) -> None:
    coordinator.propose(services, spec, [], "researcher")
    report = report_of(hospitals[0], spec, **changes)
    with pytest.raises(RequestError, match="other terms"):
        record_readiness(services, report, hospitals[0].signed(report))


@pytest.mark.parametrize(("epsilon", "holds"), [(1.0, True), (0.999, False), (0.5, False), (None, False)])
def test_the_epsilon_that_researchers_see_is_the_accountant_s_for_the_whole_study(
    services: Services, hospitals: list[Hospital], epsilon: float | None, holds: bool
) -> None:
    """`epsilon` is a factor of what the accountant says: no site may look cheaper than the study is."""
    study = parse_study(specification(privacy={"epsilon": 4.0, "delta": 1e-4}, participants={"training_patients": 100}))
    coordinator.propose(services, study, [], "researcher")
    noise = noise_multiplier_of(study)
    assert noise is not None
    spent = epsilon_of(training_events(study, noise, study.maximum_training_tasks), 1e-4)
    assert 3.9 < spent <= 4.0
    own = None if epsilon is None else epsilon * spent
    report = report_of(hospitals[0], study, noise_multiplier=noise, epsilon=own)
    assert take(services, hospitals[0], report).accepted is holds


def test_a_report_before_and_after_an_approval_changes_no_state(
    services: Services, hospitals: list[Hospital], spec: StudySpec
) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    take(services, hospitals[0], report_of(hospitals[0], spec))
    with services.reading() as session:
        states = [row.state for row in stores.participants(session, digest)]
    assert states == ["invited"] * 3
