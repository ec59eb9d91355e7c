"""What an audit of the claim says: as JSON for a script, as a table for a person."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from protocol.study import StudySpec
from site_node.privacy_audit.audit import SCHEMA, AuditedRun, guesses_each_way
from site_node.privacy_audit.one_run_bound import CONFIDENCE


def document_of(study: StudySpec, runs: Sequence[AuditedRun], canaries: int, seed: int, data: str) -> dict[str, Any]:
    """Return an audit for JSON: everything that was fixed beforehand, and every run."""
    return {
        "schema": SCHEMA,
        "study": study.name,
        "data": data,
        "canaries": canaries,
        "called_in": guesses_each_way(canaries),
        "called_out": guesses_each_way(canaries),
        "seed": seed,
        "confidence": CONFIDENCE,
        "delta": study.privacy.delta,
        "steps": study.maximum_steps,
        "sampling_rate": study.training.sampling_rate,
        "runs": [run.document() for run in runs],
        "holds": all(run.holds for run in runs),
    }


def table_of(runs: Sequence[AuditedRun]) -> Table:
    """Return the runs as a table: claimed and measured epsilon side by side."""
    table = Table(title="The claim, audited", title_justify="left")
    for heading in ("Claimed epsilon", "Attacker sees", "Right guesses", "Epsilon is at least", "Claim"):
        table.add_column(heading)
    for run in runs:
        claimed = "none" if run.claimed is None else f"{run.claimed:g}"
        for finding in run.findings:
            standing = "none" if run.claimed is None else "stands" if finding.lower_bound < run.claimed else "REFUTED"
            right = f"{finding.guesses.right} of {finding.guesses.made}"
            table.add_row(claimed, finding.attacker, right, f"{finding.lower_bound:.2f}", standing)
            claimed = ""
        table.add_section()
    return table


def conditions_of(document: dict[str, Any]) -> str:
    """Return in a few lines what the figures rest on."""
    return (
        f"{document['canaries']} canaries, each included by a coin; {document['called_in']} called in and "
        f"{document['called_out']} called out, fixed beforehand (seed {document['seed']}, none retried).\n"
        f"{document['steps']} steps, sampling rate {document['sampling_rate']:g}; bounds hold with "
        f"{document['confidence']:.0%} confidence at delta {document['delta']:g}. Data: {document['data']}."
    )
