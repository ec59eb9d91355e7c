"""A survival study at the gate: counts of pairs leave, of as many patients as were approved, and no histogram."""

from typing import Any

import numpy as np
import pytest

from protocol.concordance import PairCounts
from protocol.digest import digest_of_bytes
from protocol.messages import EvaluationReport, RoundTask, TaskKind, TaskRefusal
from protocol.metrics import ScoreHistograms
from protocol.study import StudySpec
from site_node.candidate import Candidate, write_candidate
from site_node.governance.policy import Policy, objection_to
from tests.fakes.gated_site import GatedSite, study_of

COUNTS = PairCounts(patients=10, events=4, comparable=20, concordant=15, tied=1)
HISTOGRAMS = {"validation": ScoreHistograms.from_scores(np.array([0.5]), np.array([1]))}
POLICY = """\
approval: automatic
networks: any
dp_required: false
lifetime_epsilon: 1000
"""


def survival_of(**changes: Any) -> StudySpec:
    table: dict[str, Any] = {
        "kind": "tabular",
        "cohort": {"minimum_patients": 2},
        "label": {"column": "died", "time_column": "days", "classes": ["no", "yes"]},
        "table": {"features": [{"column": "age"}]},
        "network": {"name": "linear"},
        "training": {"local_steps": 2, "sampling_rate": 0.2, "images_per_patient": 1},
        "privacy": {"epsilon": None},
    }
    return study_of(**{**table, **changes})


def judged(site: GatedSite, study: StudySpec, **fields: Any) -> EvaluationReport | TaskRefusal:
    site.settings.policy.write_text(POLICY)
    site.join(study)
    task: RoundTask = site.give(site.task(study, 1, TaskKind.EVALUATE))
    digest = digest_of_bytes(task.canonical_bytes())
    write_candidate(site.paths, Candidate(task_id=task.task_id, task_digest=digest, kind="evaluation", **fields))
    site.sweep()
    answer = site.sent()[-1]
    assert isinstance(answer, EvaluationReport | TaskRefusal)
    return answer


def test_the_counts_of_pairs_leave_as_they_are_and_are_called_unnoised(site: GatedSite) -> None:
    report = judged(site, survival_of(), pairs={"validation": COUNTS})
    assert isinstance(report, EvaluationReport)
    assert report.pairs == {"validation": COUNTS}
    assert report.histograms == {}
    assert report.noise_epsilon is None


@pytest.mark.parametrize(
    "fields",
    [
        {"pairs": {"validation": COUNTS.model_copy(update={"patients": 21})}},
        {"pairs": {}},
        {"pairs": {"validation": COUNTS}, "histograms": HISTOGRAMS},
        {"histograms": HISTOGRAMS},
    ],
    ids=["more patients than approved", "none", "histograms too", "histograms in their place"],
)
def test_anything_else_does_not_leave(site: GatedSite, fields: dict[str, Any]) -> None:
    assert isinstance(judged(site, survival_of(), **fields), TaskRefusal)


def test_a_split_that_the_study_does_not_name_does_not_leave(site: GatedSite) -> None:
    study = survival_of(evaluation={"splits": ["test"]})
    assert isinstance(judged(site, study, pairs={"validation": COUNTS}), TaskRefusal)


def test_pairs_of_a_study_that_is_none_of_survival_do_not_leave(site: GatedSite) -> None:
    fields = {"histograms": HISTOGRAMS, "pairs": {"validation": COUNTS}}
    assert isinstance(judged(site, study_of(), **fields), TaskRefusal)


def test_a_policy_of_modalities_says_nothing_of_tables_and_one_of_networks_does() -> None:
    policy = Policy(dp_required=False, modalities=["DX"])
    objection = objection_to(policy, survival_of(), None)
    assert objection is not None
    assert "'linear'" in objection.sentence
    assert objection_to(policy.model_copy(update={"networks": ["linear"]}), survival_of(), None) is None


def test_a_policy_that_demands_noised_evaluation_refuses_survival() -> None:
    policy = Policy(dp_required=False, networks="any", noised_evaluation=True)
    objection = objection_to(policy, survival_of(), None)
    assert objection is not None
    assert "not noised" in objection.sentence
