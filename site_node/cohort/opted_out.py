"""A frozen cohort without those who have opted out since: the same study, from its next task on. Pure.

They are left out as those are whose budget is spent: the site's public figure, which divides and weights, stays, and so
does the noise. To the other patients' privacy that is a patient replaced by nothing, which is what the noise covers; to
whoever sees the updates it is the same hospital as before. What was charged for them stays charged.

The digest of the manifest changes with the patients, and with it the streams of sampling and noise: one task that is
computed once with and once without a patient draws other noise, and only one of its answers leaves (the gate's record).
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from protocol.study_parts import Split
from site_node.cohort.cohort import Cohort, manifest_digest_of
from site_node.cohort.identities import Identities


def without_opted_out(cohort: Cohort, identities: Identities, split_key: bytes) -> Cohort:
    """Return the cohort without the patients who have opted out under any of their ids; itself if nobody has."""
    stay = [identities.takes_part(patient.key) for patient in cohort.patients]
    if all(stay):
        return cohort
    patients = tuple(patient for patient, stays in zip(cohort.patients, stay, strict=True) if stays)
    absent = [patient for patient, stays in zip(cohort.patients, stay, strict=True) if not stays]
    gone, images = Counter(patient.split for patient in absent), Counter[Split]()
    for patient in absent:
        images[patient.split] += len(patient.images)
    values = cohort.values
    if values is not None:
        values = values[np.repeat(stay, [len(patient.images) for patient in cohort.patients])]
    return replace(
        cohort,
        patients=patients,
        manifest_digest=manifest_digest_of(patients, split_key),
        left_out=dict(Counter(cohort.left_out) + gone),
        values=values,
        opted_out={split: (number, images[split]) for split, number in gone.items()},
    )
