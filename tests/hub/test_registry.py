"""Versions: registered with a lineage that anybody with the hub's key can check."""

import pytest

from hub.errors import NotFoundError, RequestError
from hub.registry.coordinator import comment_digest, record_decision, register_version
from hub.registry.lineage import LineageParticipant
from hub.registry.versions import version_view
from hub.services import Services
from hub.storage import audit_stores, stores
from hub.storage.tables import StudyRow
from protocol.digest import digest_of, digest_of_bytes, parse_json
from protocol.signing import open_envelope
from protocol.study import StudySpec

UPDATE, TASK, MANIFEST = (digest_of_bytes(word) for word in (b"update", b"task", b"manifest"))


@pytest.fixture
def study(services: Services, spec: StudySpec) -> str:
    with services.transaction() as session:
        row = StudyRow(
            digest=spec.digest,
            name=spec.name,
            specification=spec.canonical_bytes(),
            state="running",
            proposed_by="researcher",
            proposed_at=0.0,
        )
        session.add(row)
    return spec.digest


def register(services: Services, study: str, weights: bytes, number: int = 1) -> str:
    digest = services.blobs.put(weights)
    with services.transaction() as session:
        register_version(
            session,
            services,
            study=stores.study(session, study),
            round=number,
            weights_digest=digest,
            weights_bytes=len(weights),
            manifest_digest=MANIFEST,
            parents=[digest_of_bytes(b"parent")],
            participants=[LineageParticipant("anna", 40.0, UPDATE, TASK)],
            epsilon=2.5,
            delta=1e-5,
            server_state={"schema": "state/1"},
        )
    return digest


def test_a_versions_lineage_is_signed_and_says_where_it_comes_from(services: Services, study: str) -> None:
    digest = register(services, study, b"weights")
    with services.reading() as session:
        envelope = stores.version(session, study, 1).lineage
    lineage = parse_json(open_envelope(envelope, services.key.public))
    assert lineage["study_digest"] == study
    assert lineage["weights_digest"] == digest
    assert lineage["parents"] == [digest_of_bytes(b"parent")]
    assert lineage["participants"] == [
        {"site": "anna", "weight": 40.0, "update_digest": UPDATE, "task_digest": TASK, "staleness": 0}
    ]
    assert lineage["privacy"] == {"unit": "patient", "epsilon": 2.5, "delta": 1e-5}
    assert lineage["server_state"] == {"schema": "state/1"}


def test_a_version_is_audited_in_the_same_transaction(services: Services, study: str) -> None:
    with pytest.raises(RuntimeError), services.transaction() as session:  # noqa: PT012 - the block is the case
        digest = services.blobs.put(b"lost")
        row = stores.study(session, study)
        register_version(
            session,
            services,
            study=row,
            round=1,
            weights_digest=digest,
            weights_bytes=4,
            manifest_digest=MANIFEST,
            parents=[],
            participants=[],
            epsilon=None,
            delta=None,
        )
        raise RuntimeError
    with services.reading() as session:
        assert stores.find_version(session, study, 1) is None
        assert audit_stores.head(session) == (0, None)


def test_a_version_whose_weights_are_not_stored_is_refused(services: Services, study: str) -> None:
    with services.transaction() as session, pytest.raises(NotFoundError):
        register_version(
            session,
            services,
            study=stores.study(session, study),
            round=1,
            weights_digest=digest_of_bytes(b"nowhere"),
            weights_bytes=7,
            manifest_digest=MANIFEST,
            parents=[],
            participants=[],
            epsilon=None,
            delta=None,
        )


def test_judgements_are_added_and_the_comment_stays_out_of_the_log(services: Services, study: str) -> None:
    register(services, study, b"weights")
    record_decision(services, study, 1, "clara", "rejected", "misses small effusions")
    record_decision(services, study, 1, "clara", "accepted", "")
    with services.reading() as session:
        view = version_view(stores.version(session, study, 1), stores.decisions(session, study, 1), None)
        log = b"".join(row.entry for row in audit_stores.entries(session, 0, 10))
    assert [(d["decision"], d["comment"]) for d in view["decisions"]] == [
        ("rejected", "misses small effusions"),
        ("accepted", ""),
    ]
    assert view["participants"] == [{"site": "anna", "weight": 40.0, "update_digest": UPDATE}]
    assert b"effusions" not in log


def test_a_rewritten_comment_no_longer_fits_the_log(services: Services, study: str) -> None:
    register(services, study, b"weights")
    record_decision(services, study, 1, "clara", "rejected", "misses small effusions")
    with services.transaction() as session:
        (row,) = stores.decisions(session, study, 1)
        logged = parse_json(audit_stores.entries(session, 0, 10)[-1].entry)["details"]["comment_digest"]
        decided = {"person": "clara", "study": study, "version": 1, "decision": "rejected"}
        whole = {**decided, "comment": "misses small effusions", "decided_at": row.decided_at}
        assert logged == comment_digest(row) == digest_of(whole)
        row.comment = "finds small effusions"
        assert comment_digest(row) != logged


@pytest.mark.parametrize(("decision", "comment"), [("perhaps", ""), ("accepted", "x" * 2001), ("rejected", " \n")])
def test_an_unusable_judgement_is_refused(services: Services, study: str, decision: str, comment: str) -> None:
    register(services, study, b"weights")
    with pytest.raises(RequestError):
        record_decision(services, study, 1, "clara", decision, comment)


def test_a_version_that_does_not_exist_cannot_be_judged(services: Services, study: str) -> None:
    with pytest.raises(NotFoundError):
        record_decision(services, study, 7, "clara", "accepted", "")
