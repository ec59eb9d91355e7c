"""How the demo looks in a terminal: a live table while rounds run, plain lines where there is no terminal. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from compose.snapshot import HospitalView, RoundSummary, Score, Snapshot

ACTIVITY_STYLES = {"training": "cyan", "evaluating": "magenta", "sending": "yellow", "paused": "red"}
ROUND_STATES = {
    "initialising": "version 0 is being built",
    "training": "hospitals train",
    "overdue": "waiting for a late hospital",
    "opening": "hospitals open the sum",
    "aggregating": "the hub sums the updates",
    "evaluating": "hospitals judge the new version",
    "complete": "complete",
    "failed": "failed",
}


def live_view(snapshot: Snapshot, note: str = "") -> RenderableType:
    """Draw the study as it stands; `note` is one line below, such as that the hub does not answer."""
    parts: list[RenderableType] = [_heading(snapshot), Text(), _hospitals(snapshot.hospitals, snapshot.score_name)]
    scores = _scores_by_round(snapshot)
    if scores is not None:
        parts += [Text(), scores]
    if note:
        parts += [Text(), Text(note, style="yellow")]
    return Panel(Group(*parts), title=f"[bold]{snapshot.title}", border_style="blue", padding=(1, 2))


def results_table(snapshot: Snapshot) -> RenderableType:
    """Draw what came out: the final version, pooled and at each hospital."""
    final = snapshot.final_round
    title = f"Version {snapshot.final_version}, judged on held-out patients ({_measure(snapshot)})"
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("hospital", "training patients", "epsilon spent", "sent", "received", snapshot.score_name):
        table.add_column(name, justify="left" if name == "hospital" else "right")
    for hospital in snapshot.hospitals:
        own = final.sites.get(hospital.name, {}) if final else {}
        table.add_row(*_row(hospital, _score_cell(own.get("metrics"))))
    table.add_section()
    pooled = str(final.score) if final else "-"
    total = sum(hospital.patients or 0 for hospital in snapshot.hospitals)
    patients = f"{_about(any(hospital.noised for hospital in snapshot.hospitals))}{total}"
    up, down = (sum(getattr(h, key) for h in snapshot.hospitals) for key in ("bytes_up", "bytes_down"))
    epsilon = max((h.epsilon for h in snapshot.hospitals if h.epsilon is not None), default=None)
    table.add_row("all together", patients, _epsilon(epsilon), _size(up), _size(down), pooled, style="bold")
    return table


def _measure(snapshot: Snapshot) -> str:
    name = snapshot.score_name
    return "concordance index" if name == "concordance" else f"{name} and its 95 % interval"


def privacy_sentence(snapshot: Snapshot) -> str:
    """Say what the study promises, or that it promises nothing, of training and of held-out patients."""
    held_out = "Held-out patients: no DP."
    if snapshot.noise_epsilon is not None:
        held_out = f"Held-out patients: noise of epsilon {snapshot.noise_epsilon:g} on each evaluation's histograms."
    if snapshot.epsilon_target is None:
        return f"No differential privacy in training: the study turned it off. {held_out}"
    return (
        f"{snapshot.unit.capitalize()}-level differential privacy: at most epsilon {snapshot.epsilon_target:g} "
        f"at delta {snapshot.delta:g} for what training sent. {held_out}"
    )


def milestones(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield (key, line) of everything that has happened so far, in order; keys come again with later snapshots."""
    for hospital in snapshot.hospitals:
        if hospital.answer in {"approved", "refused", "withdrawn"}:
            yield f"{hospital.name} {hospital.answer}", _answer_line(hospital)
    for entry in snapshot.rounds:
        yield from _round_lines(entry)
    if snapshot.ended:
        yield "ended", f"study {snapshot.state}" + (f": {snapshot.reason}" if snapshot.reason else "")


def _round_lines(entry: RoundSummary) -> Iterator[tuple[str, str]]:
    yield f"{entry.number} opened", f"round {entry.number}: opened"
    for name, site in sorted(entry.sites.items()):
        if site["train_state"] == "accepted":
            yield f"{entry.number} {name} accepted", _update_line(entry.number, name, site)
        elif site["reason"]:
            yield f"{entry.number} {name} {site['reason']}", f"round {entry.number}: {name} did not: {site['reason']}"
    for warning in entry.warnings:
        yield f"{entry.number} {warning}", f"round {entry.number}: WARNING: {warning}"
    if entry.state in {"complete", "failed"}:
        yield f"{entry.number} ended", _end_line(entry)


def _update_line(number: int, name: str, site: Mapping[str, Any]) -> str:
    size = _size(site["update_bytes"] or 0)
    if number == 0:
        return f"round 0: {name} built version 0 from the study's seed ({size})"
    spent = "no differential privacy" if site["epsilon"] is None else f"epsilon {site['epsilon']:.2f} so far"
    return f"round {number}: {name} sent its update ({size}, {spent})"


def _end_line(entry: RoundSummary) -> str:
    seconds = f" in {entry.seconds:.0f} s" if entry.seconds is not None else ""
    score = f", {entry.score.name} {entry.score}" if entry.score.auc is not None else ""
    sizes = [sum(site[key] or 0 for site in entry.sites.values()) for key in ("bytes_up", "bytes_down")]
    sent = f", {_size(sizes[0])} up, {_size(sizes[1])} down"
    why = f": {entry.reason}" if entry.reason and entry.state == "failed" else ""
    return f"round {entry.number}: {entry.state}{seconds}{score}{sent}{why}"


def _heading(snapshot: Snapshot) -> RenderableType:
    latest = snapshot.rounds[-1] if snapshot.rounds else None
    done = sum(1 for entry in snapshot.rounds if entry.number > 0 and entry.state == "complete")
    if latest is None:
        words = "hospitals decide whether to take part"
    else:
        words = f"round {latest.number} of {snapshot.rounds_planned}: {ROUND_STATES.get(latest.state, latest.state)}"
    grid = Table.grid(padding=(0, 2))
    grid.add_row(ProgressBar(total=snapshot.rounds_planned, completed=done, width=30), Text(words))
    return grid


def _hospitals(hospitals: tuple[HospitalView, ...], score_name: str) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("hospital", "doing", "patients", "epsilon", "sent", "received", score_name):
        table.add_column(name, justify="left" if name in {"hospital", "doing"} else "right")
    for hospital in hospitals:
        row = _row(hospital, Text(str(hospital.score)))
        table.add_row(row[0], _doing(hospital), *row[1:])
    return table


def _row(hospital: HospitalView, score: RenderableType) -> tuple[RenderableType, ...]:
    patients = "-" if hospital.patients is None else f"{_about(hospital.noised)}{hospital.patients}"
    sizes = (_size(hospital.bytes_up), _size(hospital.bytes_down))
    return hospital.name, patients, _epsilon(hospital.epsilon), *sizes, score


def _doing(hospital: HospitalView) -> Text:
    if hospital.answer in {"refused", "withdrawn"}:
        return Text(f"{hospital.answer}: {hospital.reason or 'no reason given'}", style="red")
    if hospital.answer == "invited":
        return Text("decides", style="yellow")
    if not hospital.online:
        return Text("not heard from", style="dim")
    share = f" {hospital.fraction:4.0%}" if hospital.activity == "training" else ""
    return Text(f"{hospital.activity}{share}", style=ACTIVITY_STYLES.get(hospital.activity, ""))


def _scores_by_round(snapshot: Snapshot) -> RenderableType | None:
    scored = [entry for entry in snapshot.rounds if entry.score.auc is not None]
    if not scored:
        return None
    words = "  ".join(f"{entry.number}: {entry.score.auc:.3f}" for entry in scored[-12:])
    line = Text(f"{snapshot.score_name} by round, all hospitals   {words}")
    if max(entry.score.auc or 0.0 for entry in scored) > 1:  # errors in a unit have no scale of their own
        return line
    return Group(line, Text(_bars([e.score for e in scored]), style="green"))


def _bars(scores: list[Score]) -> str:
    """Draw scores from 0.5 (chance) to 1 as one character each."""
    marks = "▁▂▃▄▅▆▇█"
    shares = [max(0.0, min(0.999, ((score.auc or 0.5) - 0.5) * 2)) for score in scores]
    return "".join(marks[int(share * len(marks))] for share in shares)


def _score_cell(metrics: Mapping[str, object] | None) -> Text:
    from compose.snapshot import score_of

    return Text(str(score_of(metrics)))


def _answer_line(hospital: HospitalView) -> str:
    if hospital.answer == "approved":
        patients = "fewer than five" if hospital.patients is None else hospital.patients  # the hub hides a small number
        about = _about(hospital.noised and bool(hospital.patients))
        return f"{hospital.name} approved the study with {about}{patients} training patients"
    return f"{hospital.name} {hospital.answer}" + (f": {hospital.reason}" if hospital.reason else "")


def _about(noised: bool) -> str:
    return "about " if noised else ""


def _epsilon(epsilon: float | None) -> str:
    return "-" if epsilon is None else f"{epsilon:.2f}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"
