"""Open a round of training: who is asked, on which version, until when. In the caller's transaction.

In buffered rounds a site that is ready later is asked then, with the round that is open and the version that is newest.
"""

from collections.abc import Sequence

from hub.aggregation.strategy import ServerState
from hub.registry.lineage import read_lineage
from hub.rounds.asking import TrainingTerms, Turn, ask
from hub.rounds.closing import needed_updates
from hub.rounds.learned_deadlines import learned_deadline, usual_seconds
from hub.rounds.moving import add_round
from hub.rounds.opening_methods import opening_of
from hub.rounds.participants import drawn, fewest_sites, sites_problem, taking_part, trainers
from hub.rounds.rate_factors import rate_of
from hub.rounds.rate_memory import rates_after
from hub.rounds.transitions import RoundState, TaskState
from hub.rounds.waiting_updates import training_now
from hub.storage import round_stores, stores
from hub.storage.tables import RoundRow, TaskRow, VersionRow
from protocol.messages import ModelReference, TaskKind


def state_after(version: VersionRow) -> ServerState:
    """Return the strategy's state as it was stored with a version."""
    return ServerState.from_document(read_lineage(version.lineage)["server_state"])


def problem_with_opening(turn: Turn, number: int) -> str | None:
    """Say why a round of training cannot open now, or None."""
    participants = turn.participants()
    asked = _drawn(turn, number)
    problem = sites_problem(turn.spec, len(asked))
    if problem is not None:
        return f"Round {number} cannot open: {problem}"
    remaining, fewest = len(taking_part(participants, turn.now)), fewest_sites(turn.spec)
    if asked and remaining >= fewest:
        return None
    training = len(trainers(participants, turn.now))
    reason = f"Round {number} cannot open: {remaining} approvals hold, {training} of them with training patients."
    return f"{reason} The study needs {fewest}."


def open_training(turn: Turn, number: int) -> RoundRow:
    """Open a round and ask its sites, but for those that still train for an earlier one."""
    drawn_now = _drawn(turn, number)
    busy = {task.site for task in training_now(turn)}
    ready = [site for site in drawn_now if site not in busy]
    recorded = {"drawn": drawn_now} if turn.spec.participants.sampled < 1 else {}
    seconds = seconds_for(turn, TaskKind.TRAIN, ready)
    row = add_round(turn, number, RoundState.TRAINING, seconds, recorded)
    _ask_to_train(turn, row, ready)
    method = opening_of(turn.spec)
    if method is not None:
        method.open(turn, row, ready)
    return row


def ask_ready_sites(turn: Turn, row: RoundRow) -> bool:
    """Ask the sites that have nothing to do for this study and were not asked in this round; tell whether there were.

    Guarantee: a site has one task in a round, and one at a time.
    """
    busy = {task.site for task in training_now(turn)}
    asked = {task.site for task in _tasks(turn, row)}
    ready = [p.site for p in trainers(turn.participants(), turn.now) if p.site not in busy | asked]
    _ask_to_train(turn, row, ready)
    return bool(ready)


def seconds_for(turn: Turn, kind: TaskKind, sites: Sequence[str]) -> float | None:
    """Return the seconds until the deadline of a phase in which these sites are asked; None: the study's own."""
    terms = turn.spec.participants
    if terms.deadline == "fixed":
        return None
    measured = measured_seconds(round_stores.tasks_of_study(turn.session, turn.study.digest), kind)
    usual = [usual_seconds(measured.get(site, [])) for site in sites]
    return learned_deadline(usual, needed_updates(len(sites), terms.quorum), terms.deadline_seconds)


def measured_seconds(tasks: Sequence[TaskRow], kind: TaskKind) -> dict[str, list[float]]:
    """Return how long each site took for the tasks of a kind that it answered, in the order of rounds."""
    found: dict[str, list[float]] = {}
    for task in tasks:
        if task.kind == kind and task.state == TaskState.ACCEPTED and task.answered_at is not None:
            found.setdefault(task.site, []).append(task.answered_at - task.opened_at)
    return found


def _drawn(turn: Turn, number: int) -> list[str]:
    names = [participant.site for participant in trainers(turn.participants(), turn.now)]
    return drawn(names, turn.study.digest, number, turn.spec.participants)


def _ask_to_train(turn: Turn, row: RoundRow, sites: Sequence[str]) -> None:
    version = stores.newest_version(turn.session, turn.study.digest)
    state = state_after(version)
    base = ModelReference(
        number=version.number,
        weights_digest=state.sent,
        weights_bytes=version.weights_bytes,
        manifest_digest=version.manifest_digest,
    )
    control = None if state.control is None else base.model_copy(update={"weights_digest": state.control})
    rates = rates_after(turn.session, turn.spec, turn.study.digest, state)
    terms = {
        site: TrainingTerms(state.update_norm, control, rate_of(turn.spec, row.number, site, rates)) for site in sites
    }
    ask(turn, sites, row.number, TaskKind.TRAIN, base, terms)


def _tasks(turn: Turn, row: RoundRow) -> Sequence[TaskRow]:
    return round_stores.tasks_of_round(turn.session, row.study, row.number, TaskKind.TRAIN.value)
