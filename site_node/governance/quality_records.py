"""The quality figures of a study's cohort, as the worker released them and the gate tells them, once.

They are kept before the study is charged for them, and told in the transaction that charges it.
"""

import sqlite3

from protocol.class_balance import balanced_weights
from protocol.digest import canonical_json
from protocol.messages import Reason
from protocol.site_rates import QualityFigures
from protocol.study import StudySpec
from site_node.candidate import CohortFigures
from site_node.governance.policy import Objection

SCHEMA = """
CREATE TABLE IF NOT EXISTS quality_figures (study TEXT PRIMARY KEY, figures BLOB NOT NULL);
"""


def quality_objection(study: StudySpec, figures: CohortFigures, training_patients: int) -> Objection | None:
    """Say why a cohort's quality figures may not leave, or None: more, less or other than the study reads. Pure."""
    wanted = study.site_rates.reads_quality and training_patients > 0
    if figures.quality is None:
        return (
            Objection(Reason.INTERNAL, "The worker counted no quality figures, and the study reads them.")
            if wanted
            else None
        )
    if not figures.quality.fits(study.site_rates, figures.training_patients):
        return Objection(Reason.INTERNAL, "The cohort's quality figures are not those that the study reads.")
    return None


def keep_quality(database: sqlite3.Connection, study_digest: str, quality: QualityFigures | None) -> None:
    """Keep a counted cohort's figures in place of an earlier count's. Call within a transaction."""
    database.execute("DELETE FROM quality_figures WHERE study = ?", (study_digest,))
    if quality is not None:
        database.execute(
            "INSERT INTO quality_figures VALUES (?, ?)", (study_digest, canonical_json(quality.model_dump(mode="json")))
        )


def class_weights_of(
    database: sqlite3.Connection, study: StudySpec, study_digest: str, training_patients: int
) -> list[float] | None:
    """Return the weights of a study's classes, made of the figures that it told; None where it states its own."""
    figures = quality_of(database, study_digest) if study.label.balance == "quality" else None
    return None if figures is None else list(balanced_weights(figures, training_patients))


def quality_of(database: sqlite3.Connection, study_digest: str) -> QualityFigures | None:
    """Return the figures that a study's approval tells, or None."""
    row = database.execute("SELECT figures FROM quality_figures WHERE study = ?", (study_digest,)).fetchone()
    return None if row is None else QualityFigures.model_validate_json(row["figures"])
