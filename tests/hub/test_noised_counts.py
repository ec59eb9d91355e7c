"""Noised numbers of training patients at the hub: taken as the study says, after their charge; in the preview."""

from typing import Any

import pytest

from hub.errors import ChargeMissingError, RequestError
from hub.services import Services
from hub.storage import stores
from hub.studies import coordinator
from hub.studies.ledger_heads import terms_problem
from hub.studies.specification import preview
from hub.studies.views import study_view
from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec
from tests.fakes.hospital import Hospital
from tests.hub.conftest import Queue
from tests.hub.rounds.bench import Bench, study_of

pytestmark = pytest.mark.both_databases

PRIVATE = {"privacy": {"epsilon": 8.0, "delta": 1e-4, "count_epsilon": 0.5}}
PLAIN = {"privacy": {"epsilon": None, "count_epsilon": 0.5}}


@pytest.fixture
def bench(services: Services, hospitals: list[Hospital], queue: Queue) -> Bench:
    return Bench(services, hospitals, queue)


def proposed(bench: Bench, **changes: Any) -> StudySpec:
    study = study_of(participants={"training_patients": 100}, **changes)
    coordinator.propose(bench.services, study, [], "researcher")
    return study


@pytest.mark.parametrize("terms", [PRIVATE, PLAIN], ids=["private training", "training without privacy"])
def test_a_noised_number_needs_its_charge_and_is_kept_as_told(bench: Bench, terms: dict[str, Any]) -> None:
    study, anna = proposed(bench, **terms), bench.hospital("anna")
    approval = anna.approval(study.digest, patients=37, count_epsilon=0.5)
    with pytest.raises(ChargeMissingError):
        bench.say(anna, approval)
    assert bench.say(anna, anna.charge(study)).accepted
    assert bench.say(anna, approval).accepted
    with bench.services.reading() as session:
        shown = study_view(session, stores.study(session, study.digest))
    assert next(site["training_patients"] for site in shown["sites"] if site["site"] == "anna") == 37


@pytest.mark.parametrize(
    ("terms", "told"),
    [(PRIVATE, None), (PRIVATE, 0.4), ({"privacy": {"epsilon": None}}, 0.5)],
    ids=["exact", "with other noise", "noised where the study takes exact numbers"],
)
def test_a_number_that_is_not_noised_as_the_study_says_is_refused(
    bench: Bench, terms: dict[str, Any], told: float | None
) -> None:
    study, anna = proposed(bench, **terms), bench.hospital("anna")
    approval = anna.approval(study.digest, count_epsilon=told)
    with pytest.raises(RequestError, match=r"privacy\.count_epsilon"):
        coordinator.record_approval(bench.services, approval, anna.signed(approval))


def test_a_site_that_does_not_train_tells_none(bench: Bench) -> None:
    study, anna = proposed(bench, **PRIVATE), bench.hospital("anna")
    assert bench.say(anna, anna.approval(study.digest, patients=0)).accepted


@pytest.mark.parametrize("terms", [PRIVATE, PLAIN], ids=["private training", "training without privacy"])
def test_a_charge_without_the_count_is_not_the_study_s(bench: Bench, terms: dict[str, Any]) -> None:
    study, anna = study_of(participants={"training_patients": 100}, **terms), bench.hospital("anna")
    charge, noise = anna.charge(study), noise_multiplier_of(study)
    events = charge.charged["training"]
    assert terms_problem(charge, None, study, noise) is None
    less = charge.model_copy(update={"charged": {"training": events[:-1]}})
    assert "not those that the study plans" in str(terms_problem(less, None, study, noise))


def test_the_preview_s_epsilon_has_the_count_in_it() -> None:
    """The first round's epsilon is at least the count's own, and the last the study's."""
    shares = preview(study_of(participants={"training_patients": 100}, **PRIVATE))["epsilon_by_round"]
    without = {"privacy": {"epsilon": 8.0, "delta": 1e-4}}
    plain = preview(study_of(participants={"training_patients": 100}, **without))["epsilon_by_round"]
    assert shares[-1] <= 8.0
    assert len(shares) == len(plain)
    assert shares[0] > 0.5
