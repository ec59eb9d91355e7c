"""What the index holds, for the people of the hospital: in tens, no small number, no file's name and no patient's.

The numbers are those of `wardround site cohort` without criteria. Roots are named as site.yaml names them.
"""

from collections import defaultdict
from typing import Any

from protocol.cohort_terms import Cohort as Everything
from site_node.cohort.cohort import SMALLEST_SAID
from site_node.cohort.index_database import IndexDatabase, open_index
from site_node.cohort.survey import survey, survey_as_json
from site_node.errors import SettingsError
from site_node.governance.policy import load_policy
from site_node.opt_outs import load_identities
from site_node.rounded_counts import in_tens
from site_node.settings import SiteSettings

NO_MODALITY = "not said"


def index_document(settings: SiteSettings) -> dict[str, Any]:
    """Return the page. `changed_at` is when an indexing last wrote; one that finds nothing new writes nothing.

    Raises: SettingsError if nothing is indexed yet.
    """
    path = settings.paths.index
    if not path.exists():
        raise SettingsError("The images of this site are not indexed yet.", "Run: wardround site index DIR")
    least = max(SMALLEST_SAID, load_policy(settings.policy).minimum_patients)
    identities = load_identities(settings)
    with open_index(path, identities) as database:
        found = survey_as_json(survey(database, Everything()), identities, least)
        modalities = _modalities(database, least)
    return {
        "changed_at": max(file.stat().st_mtime for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()),
        "roots": [{"folder": str(root), "there": root.is_dir()} for root in settings.images],
        "modalities": modalities,
        **found,
    }


def _modalities(database: IndexDatabase, least: int) -> dict[str, dict[str, int | None]]:
    """Return patients and images of each modality, in tens; both None where the patients are too few to be said."""
    patients: defaultdict[str, set[str]] = defaultdict(set)
    images: defaultdict[str, set[str]] = defaultdict(set)
    for image in database.pictures():
        name = image.header.modality or NO_MODALITY
        images[name].add(image.header.sop_instance_uid)
        if image.header.patient_id is not None:
            patients[name].add(image.header.patient_id)
    return {
        name: {
            "patients": in_tens(len(patients[name]), least),
            "images": in_tens(len(images[name]), 1) if len(patients[name]) >= least else None,
        }
        for name in sorted(images)
    }
