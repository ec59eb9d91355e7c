"""The patients of a site, for an audit beside them. What is learnt stays on the screen of who runs it."""

import hashlib
from pathlib import Path

from protocol.study import StudySpec
from site_node.cohort.cohort import build_cohort
from site_node.errors import TooFewPatientsError
from site_node.opt_outs import load_identities
from site_node.settings import load_settings
from site_node.training.patients import prepare_cohort
from site_node.training.prepared_patients import PreparedPatients


def training_patients(folder: Path, study: StudySpec, seed: int) -> PreparedPatients:
    """Return the training patients that a site would have in a study. Nothing is kept on disk.

    Where labels.csv names no split, the audit draws one of its own from the seed.
    Raises: SettingsError, IndexingError, LabelsError or PixelsError; TooFewPatientsError if nobody would train.
    """
    settings = load_settings(folder)
    split_key = hashlib.sha256(f"wardround.privacy-audit/1 split {seed}".encode()).digest()
    places, identities = (settings.paths.index, settings.labels), load_identities(settings)
    cohort = build_cohort(*places, study, split_key, identities=identities, labelling=settings.labelling)
    patients = prepare_cohort(study, cohort, ["train"], cache=None).get("train")
    if patients is None:
        raise TooFewPatientsError("This site has no patient to train on.", "Audit without DIR, on made-up patients.")
    return patients
