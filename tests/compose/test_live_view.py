import io
from typing import Any

from rich.console import Console, RenderableType

from compose.live_view import live_view, milestones, privacy_sentence, results_table
from compose.snapshot import Snapshot, snapshot_of


def metrics(auc: float) -> dict[str, Any]:
    return {"auc": auc, "auc_low": auc - 0.1, "auc_high": auc + 0.1, "by_split": {}}


def site(name: str, state: str = "accepted", **more: Any) -> dict[str, Any]:
    return {
        "site": name,
        "train_state": state,
        "evaluate_state": None,
        "reason": None,
        "patients": 100,
        "epsilon": 2.5,
        "update_bytes": 1_400_000,
        "bytes_up": 1_500_000,
        "bytes_down": 2_000,
        "metrics": metrics(0.75),
        **more,
    }


def study(**more: Any) -> dict[str, Any]:
    return {
        "name": "pneumonia",
        "title": "Pneumonia or not",
        "digest": "sha256:" + "0" * 64,
        "state": "running",
        "reason": None,
        "rounds_planned": 2,
        "final_version": None,
        "privacy": {"unit": "patient", "epsilon_target": 8.0, "epsilon": 2.5, "delta": 1e-4},
        "study": {"evaluation": {"noise_epsilon": None}, "privacy": {"count_epsilon": None}},
        "sites": [
            {"site": "st-anna", "state": "approved", "reason": None, "training_patients": 167, "evaluates": True},
            {"site": "harbour", "state": "refused", "reason": "policy", "training_patients": None, "evaluates": True},
        ],
        **more,
    }


def one_round(state: str = "complete", **more: Any) -> dict[str, Any]:
    return {
        "number": 1,
        "state": state,
        "version": 1,
        "seconds": 6.2,
        "reason": None,
        "metrics": metrics(0.8),
        "sites": [site("st-anna")],
        **more,
    }


SITES = [{"name": "st-anna", "online": True, "activity": "training", "fraction": 0.4, "state": "enrolled"}]


def drawn(view: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=120, no_color=True)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_live_view_shows_for_each_hospital_what_it_does_and_gave() -> None:
    text = drawn(live_view(snapshot_of(study(), [one_round("training")], SITES)))
    for words in ("Pneumonia or not", "round 1 of 2", "training  40%", "167", "2.50", "1.5 MB", "2 kB", "0.750"):
        assert words in text, text
    assert "refused: policy" in text


def test_a_study_without_rounds_yet_can_be_drawn() -> None:
    text = drawn(live_view(snapshot_of(study(state="proposed"), [], []), "The hub does not answer."))
    assert "hospitals decide" in text
    assert "The hub does not answer." in text


def test_plain_lines_come_once_each_and_in_order() -> None:
    def keys(snapshot: Snapshot) -> list[str]:
        return [key for key, _ in milestones(snapshot)]

    before = snapshot_of(study(), [one_round("training", metrics=None)], SITES)
    after = snapshot_of(study(state="completed", final_version=1), [one_round()], SITES)
    assert keys(after)[: len(keys(before))] == keys(before)
    lines = [line for _, line in milestones(after)]
    assert lines[0] == "st-anna approved the study with 167 training patients"
    assert lines[1] == "harbour refused: policy"
    assert "round 1: complete in 6 s, AUC 0.800 (0.700 to 0.900), 1.5 MB up, 2 kB down" in lines
    assert lines[-1] == "study completed"


def test_a_noised_number_of_patients_is_called_so() -> None:
    noised = study()["study"] | {"privacy": {"count_epsilon": 0.5}}
    snapshot = snapshot_of(study(study=noised), [one_round()], SITES)
    _, line = next(milestones(snapshot))
    assert line == "st-anna approved the study with about 167 training patients"
    assert drawn(results_table(snapshot)).count("about 167") == 2  # the hospital, and all together


def test_the_results_show_pooled_and_per_hospital_scores_with_their_interval() -> None:
    text = drawn(results_table(snapshot_of(study(state="completed", final_version=1), [one_round()], SITES)))
    assert "0.800 (0.700 to 0.900)" in text
    assert "0.750 (0.650 to 0.850)" in text
    assert "all together" in text


def test_hidden_and_undefined_scores_are_dashes() -> None:
    empty = {"auc": None, "auc_low": None, "auc_high": None}
    entry = one_round(metrics=empty, sites=[site("st-anna", metrics=None, epsilon=None)])
    assert "-" in drawn(results_table(snapshot_of(study(state="completed", final_version=1), [entry], SITES)))


def test_what_is_promised_is_said_plainly() -> None:
    plain = privacy_sentence(snapshot_of(study(), [], []))
    assert "Patient-level" in plain
    assert "epsilon 8 at delta 0.0001" in plain
    assert "Held-out patients: no DP." in plain
    noised = study()["study"] | {"evaluation": {"noise_epsilon": 0.5}}
    assert "Held-out patients: noise of epsilon 0.5" in privacy_sentence(snapshot_of(study(study=noised), [], []))
    off = {"unit": "patient", "epsilon_target": None, "epsilon": None, "delta": 1e-4}
    assert "No differential privacy" in privacy_sentence(snapshot_of(study(privacy=off), [], []))


def test_a_round_trained_on_a_fraction_of_the_patients_is_a_line_of_its_own() -> None:
    warning = "st-anna trained this round on a fraction of the patients that it told: at most 43 of 67."
    lines = [line for _, line in milestones(snapshot_of(study(), [one_round(warnings=[warning])], []))]
    assert f"round 1: WARNING: {warning}" in lines
    assert lines.index(f"round 1: WARNING: {warning}") < len(lines) - 1
