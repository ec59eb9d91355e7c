"""What a study may not ask of its pace: buffered rounds, late updates, learned deadlines, early stopping, warm start.

Each rule with its reason and remedy. Pure; called by `study_rules.py`.
"""

from protocol.site_level import is_adaptive
from protocol.study import StudySpec


def pace_problems(study: StudySpec) -> list[str | None]:
    """Return one sentence for each rule of rounds' pace that the study breaks."""
    buffered = study.pace.mode == "buffered"
    found = [*_buffered(study)] if buffered else [_buffer_unused(study)]
    if buffered or study.participants.late == "fold":
        found += _mixed_rounds(study, "pace.mode: 'buffered'" if buffered else "participants.late: 'fold'")
    return [*found, _patience(study), *_start(study)]


def _buffered(study: StudySpec) -> list[str | None]:
    size, fewest = study.pace.buffer, study.participants.minimum_sites
    found: list[str | None] = []
    if size is None:
        found.append("pace.buffer: required with pace.mode: buffered. State how many updates make a version.")
    elif size > fewest:
        found.append(
            f"pace.buffer: a site has one task in a round, so {fewest} sites (participants.minimum_sites) never fill "
            f"a buffer of {size}. Lower it, or raise participants.minimum_sites."
        )
    synchronous = {
        "deadline": study.participants.deadline != "fixed",
        "late": study.participants.late != "refuse",
        "sampled": study.participants.sampled < 1,
    }
    found += [
        f"participants.{name}: in buffered rounds no site is waited for and none is late; every site that is ready is "
        f"asked. Leave participants.{name} out, or set pace.mode: synchronous."
        for name, is_asked_for in synchronous.items()
        if is_asked_for
    ]
    return found


def _buffer_unused(study: StudySpec) -> str | None:
    if study.pace.buffer is None:
        return None
    return "pace.buffer: synchronous rounds have no buffer. Leave it out, or set pace.mode: buffered."


def _mixed_rounds(study: StudySpec, term: str) -> list[str]:
    """Return why updates of different rounds cannot be added, where the study asks for it by `term`."""
    found = []
    if study.secure_aggregation.method != "none":
        found.append(
            f"{term} adds updates of different rounds, and masks and keys are of one round only. "
            "Leave it out, or set secure_aggregation.method: none."
        )
    if is_adaptive(study.privacy):
        found.append(
            f"{term} adds updates of different rounds, and each round has its own length to which updates are cut. "
            "Leave it out, or set privacy.update_norm_rate: 0."
        )
    if study.strategy.name == "scaffold":
        found.append(
            f"{term} adds updates of different rounds, and the control variates of 'scaffold', which are read off "
            "them, are of one round. Leave it out, or choose another strategy.name."
        )
    return found


def _patience(study: StudySpec) -> str | None:
    if study.evaluation.patience is None or "validation" in study.evaluation.splits:
        return None
    return "evaluation.patience: looks at the validation AUC. Add 'validation' to evaluation.splits."


def _start(study: StudySpec) -> list[str | None]:
    start = study.start
    found: list[str | None] = []
    if (start.study is None) != (start.version is None):
        found.append("start: a version is named by its study and its number together. State both, or neither.")
    if start.weights is None and (start.study is not None or start.version is not None):
        found.append(
            "start.weights: required, because hospitals approve the very weights that a study starts from. "
            "State their digest; the page of the version shows it."
        )
    return found
