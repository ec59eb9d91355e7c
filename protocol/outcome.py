"""What a study's model says of a patient: the one word by which training, evaluation, admission and pages choose.

    binary         one of two classes                       one output: the logit of the second class
    multi-class    exactly one of several classes           one output a class, of which the largest is meant
    multi-label    any number of findings, each by itself   one output a finding; a finding may be unknown
    survival       when an event happens                    one output: the log-hazard
    segmentation   which class each pixel belongs to        one output a class for each pixel
    regression     a number                                 one output: the number as a part of its range

A new word is added here, to `StudySpec.outcome`, to `site_node/training/objectives/choice.py` (what is trained and
counted at a site), and to `held_out.py` (which field of a report its held-out counts travel in, and how they are
checked).
"""

from typing import Literal

Outcome = Literal["binary", "multi-class", "multi-label", "survival", "segmentation", "regression"]
