"""Proposing, approving, starting and stopping studies, against a real database."""

from typing import Any

import pytest

from hub.errors import NotFoundError, RequestError, StateError
from hub.services import Services
from hub.storage import audit_stores, stores
from hub.studies import coordinator
from hub.studies.specification import preview, read_study
from hub.studies.views import study_view
from protocol.errors import SpecificationError
from protocol.messages import StudyClosed, StudyProposal, parse_message
from protocol.signing import open_envelope
from protocol.study import StudySpec, parse_study
from tests.fakes.hospital import Hospital
from tests.hub.conftest import specification

pytestmark = pytest.mark.both_databases


def answer(services: Services, hospital: Hospital, digest: str, decision: str = "approved", **more: Any) -> None:
    approval = hospital.approval(digest, decision, **more)
    coordinator.record_approval(services, approval, hospital.signed(approval))


def view(services: Services, digest: str) -> dict[str, Any]:
    with services.reading() as session:
        return study_view(session, stores.study(session, digest))


def mail(services: Services, site: str, kind: type) -> list[Any]:
    with services.reading() as session:
        payloads = [
            open_envelope(row.envelope, services.key.public) for row in stores.mail_after(session, site, 0, 100)
        ]
    return [message for message in map(parse_message, payloads) if isinstance(message, kind)]


def test_a_proposal_reaches_every_enrolled_site(services: Services, hospitals: list[Hospital], spec: StudySpec) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    assert digest == spec.digest
    for hospital in hospitals:
        (proposal,) = mail(services, hospital.name, StudyProposal)
        assert parse_study(proposal.study).digest == digest == proposal.study_digest
    shown = view(services, digest)
    assert shown["state"] == "proposed"
    assert [site["state"] for site in shown["sites"]] == ["invited"] * 3
    assert shown["round"] is None


def test_a_proposal_reaches_only_the_sites_that_are_named(
    services: Services, hospitals: list[Hospital], spec: StudySpec
) -> None:
    coordinator.propose(services, spec, ["clara", "anna"], "researcher")
    assert [len(mail(services, h.name, StudyProposal)) for h in hospitals] == [1, 0, 1]


def test_the_same_proposal_again_changes_nothing(
    services: Services, hospitals: list[Hospital], spec: StudySpec
) -> None:
    first = coordinator.propose(services, spec, [], "researcher")
    with services.reading() as session:
        before = audit_stores.head(session)
    assert coordinator.propose(services, spec, [], "researcher") == first
    with services.reading() as session:
        assert audit_stores.head(session) == before
    with pytest.raises(StateError, match="other sites"):
        coordinator.propose(services, spec, ["anna", "bela"], "researcher")
    other = parse_study(specification(rounds=3))
    with pytest.raises(StateError, match="another specification"):
        coordinator.propose(services, other, [], "researcher")


def test_an_absurd_figure_of_one_site_is_refused_and_fails_nobodys_study(
    services: Services, hospitals: list[Hospital]
) -> None:
    terms = {"minimum_sites": 2, "training_patients": 500}
    spec = parse_study(specification(participants=terms, privacy={"epsilon": 8.0, "delta": 1e-4}))
    digest = coordinator.propose(services, spec, [], "researcher")
    with pytest.raises(RequestError, match="training patients"):
        answer(services, hospitals[0], digest, patients=2**50)
    assert view(services, digest)["state"] == "proposed"


def test_unknown_or_too_few_sites_are_refused(services: Services, hospitals: list[Hospital], spec: StudySpec) -> None:
    with pytest.raises(RequestError, match="Not enrolled at this hub: nowhere"):
        coordinator.propose(services, spec, ["anna", "nowhere"], "researcher")
    with pytest.raises(RequestError, match="at least 2 sites"):
        coordinator.propose(services, spec, ["anna"], "researcher")


def test_a_study_starts_by_itself_when_all_have_answered_and_enough_approved(
    services: Services, hospitals: list[Hospital], spec: StudySpec
) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    anna, bela, clara = hospitals
    answer(services, anna, digest)
    answer(services, bela, digest, patients=7)
    assert view(services, digest)["state"] == "proposed"
    answer(services, clara, digest, "refused", reason="policy")
    shown = view(services, digest)
    assert (shown["state"], shown["round"]) == ("running", 0)
    assert shown["started_at"] == services.clock()
    assert shown["sites"][1]["training_patients"] == 7
    assert shown["sites"][2] == {
        "site": "clara",
        "state": "refused",
        "reason": "policy",
        "training_patients": 0,
        "evaluates": True,
        "quality": None,
        "readiness": None,
    }


@pytest.mark.parametrize(("patients", "shown"), [(0, 0), (1, None), (4, None), (5, 5)])
def test_few_training_patients_of_a_hospital_are_hidden_in_what_is_shown(
    services: Services, hospitals: list[Hospital], spec: StudySpec, patients: int, shown: int | None
) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    for hospital, number in zip(hospitals, (patients, 20, 20), strict=True):
        answer(services, hospital, digest, patients=number)
    assert [site["training_patients"] for site in view(services, digest)["sites"]] == [shown, 20, 20]


def test_the_same_answer_again_changes_nothing(services: Services, hospitals: list[Hospital], spec: StudySpec) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    for hospital in hospitals:
        answer(services, hospital, digest)
    with services.reading() as session:
        before = audit_stores.head(session)
    answer(services, hospitals[0], digest)
    with services.reading() as session:
        assert audit_stores.head(session) == before


def test_a_study_that_cannot_get_enough_sites_fails_and_says_so(
    services: Services, hospitals: list[Hospital], spec: StudySpec
) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    answer(services, hospitals[0], digest, "refused")
    answer(services, hospitals[1], digest, "refused")
    shown = view(services, digest)
    assert (shown["state"], shown["reason"]) == ("failed", "0 sites approved; the study needs 2.")
    assert mail(services, "clara", StudyClosed)[0].state == "failed"
    with pytest.raises(StateError, match="has ended"):
        answer(services, hospitals[2], digest)


def test_a_researcher_may_start_early_but_not_below_the_minimum(
    services: Services, hospitals: list[Hospital], spec: StudySpec
) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    answer(services, hospitals[0], digest)
    with pytest.raises(StateError, match="1 of at least 2"):
        coordinator.start(services, digest, "researcher")
    answer(services, hospitals[1], digest)
    coordinator.start(services, digest, "researcher")
    assert view(services, digest)["state"] == "running"
    with pytest.raises(StateError, match="running"):
        coordinator.start(services, digest, "researcher")


def test_a_slow_site_may_join_a_running_study(services: Services, hospitals: list[Hospital], spec: StudySpec) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    answer(services, hospitals[0], digest)
    answer(services, hospitals[1], digest)
    coordinator.start(services, digest, "researcher")
    answer(services, hospitals[2], digest)
    assert view(services, digest)["sites"][2]["state"] == "approved"


def test_a_running_study_can_be_stopped_once(services: Services, hospitals: list[Hospital], spec: StudySpec) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    for hospital in hospitals:
        answer(services, hospital, digest)
    coordinator.stop(services, digest, "researcher")
    shown = view(services, digest)
    assert (shown["state"], shown["reason"]) == ("stopped", "Stopped by researcher.")
    assert mail(services, "anna", StudyClosed)[0].state == "stopped"
    with pytest.raises(StateError, match="has ended"):
        coordinator.stop(services, digest, "researcher")


def test_a_site_that_was_not_invited_has_no_say(services: Services, hospitals: list[Hospital], spec: StudySpec) -> None:
    digest = coordinator.propose(services, spec, ["anna", "bela"], "researcher")
    with pytest.raises(NotFoundError, match="not invited"):
        answer(services, hospitals[2], digest)


def test_a_withdrawn_approval_is_kept_as_such(services: Services, hospitals: list[Hospital], spec: StudySpec) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    for hospital in hospitals:
        answer(services, hospital, digest)
    answer(services, hospitals[0], digest, "withdrawn")
    shown = view(services, digest)
    assert shown["sites"][0]["state"] == "withdrawn"
    with pytest.raises(StateError):
        answer(services, hospitals[0], digest, "approved", patients=41)


def test_an_unreadable_expiry_is_refused(services: Services, hospitals: list[Hospital], spec: StudySpec) -> None:
    digest = coordinator.propose(services, spec, [], "researcher")
    for text in ("tomorrow", "2031-01-01T00:00:00"):
        with pytest.raises(RequestError, match="RFC 3339"):
            answer(services, hospitals[0], digest, expires_at=text)
    answer(services, hospitals[0], digest, expires_at="2031-01-01T00:00:00Z")


def test_a_specification_may_be_yaml_or_json() -> None:
    yaml_text = b"""
name: tiny
label: {classes: ["no", "yes"]}
network: {name: densenet}
rounds: 2
privacy: {epsilon: null}
"""
    json_text = (
        b'{"name": "tiny", "label": {"classes": ["no", "yes"]}, "network": {"name": "densenet"}, "rounds": 2,'
        b' "privacy": {"epsilon": null}}'
    )
    assert read_study(yaml_text).digest == read_study(json_text).digest


@pytest.mark.parametrize(
    "text", [b"a: b: c", b"\xff\xfe\x00", b"[" * 5000, b"- 1", b"", b"!!python/object:os.system {}"]
)
def test_what_does_not_parse_gets_one_clear_message(text: bytes) -> None:
    with pytest.raises(SpecificationError, match="Expected"):
        read_study(text)


def test_a_preview_says_what_each_round_costs() -> None:
    spec = parse_study(
        specification(
            rounds=40,
            training={"local_steps": 2, "sampling_rate": 0.1},
            privacy={"epsilon": 8, "delta": 1e-5},
            participants={"training_patients": 500},
        )
    )
    found = preview(spec)
    by_round = found["epsilon_by_round"]
    assert found["digest"] == spec.digest
    assert found["noise_multiplier"] > 0
    assert len(by_round) == 40
    assert by_round == sorted(by_round)
    assert 7.5 < by_round[-1] <= 8
    assert preview(parse_study(specification()))["epsilon_by_round"] == []
