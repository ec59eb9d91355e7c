"""What site.yaml says of labels: the hospital's own words, and which concept of its structured reports is which label.

    label_names:                 # or the name of a YAML file with these lines
      GTV-1: tumour              # a segment, a structure, a word of labels.csv
      "255": tumour              # a value of a mask file
      SCT:64033007: organ        # a code
      couch: ""                  # nothing of a study
    reports:
      label: DCM:121071          # the column that a study names: the concept whose value is the label

A class of the study that is written as the study writes it needs no entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field

from site_node.errors import SettingsError

MOST_NAMES = 10_000
MAX_NAMES_BYTES = 1 << 20


def _as_words(value: Any) -> Any:
    """Return a mapping with words on both sides; YAML reads 255 as a number, and nothing as null."""
    if not isinstance(value, dict):
        return value
    return {str(local): "" if meant is None else str(meant) for local, meant in value.items()}


Names = Annotated[dict[str, str], BeforeValidator(_as_words), Field(max_length=MOST_NAMES)]
Concept = Annotated[str, Field(min_length=3, max_length=128)]


@dataclass(frozen=True)
class LabelSettings:
    """The study's words by the hospital's own (`labels/naming.py`), and the reports' concepts by a study's columns."""

    names: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, str] = field(default_factory=dict)


def names_in(entry: dict[str, str] | str, folder: Path) -> dict[str, str]:
    """Return `label_names` as it stands in site.yaml, or from the file that it names.

    Raises: SettingsError if the file is missing, or holds something else; without a word of it.
    """
    if isinstance(entry, dict):
        return entry
    path = folder / entry
    remedy = "It holds lines like `GTV-1: tumour`: the hospital's word, a colon, the study's."
    try:
        if path.stat().st_size > MAX_NAMES_BYTES:
            raise SettingsError(f"{path} is larger than {MAX_NAMES_BYTES} bytes.", "Is it the right file?")
        names = _as_words(yaml.safe_load(path.read_bytes()) or {})
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {(error.strerror or 'input error').lower()}.",
            "site.yaml names it as label_names: put it there, or correct the name.",
        ) from None
    except yaml.YAMLError:
        raise SettingsError(f"{path} is not YAML.", remedy) from None
    if not isinstance(names, dict) or len(names) > MOST_NAMES:
        raise SettingsError(f"{path} holds no names, or more than {MOST_NAMES}.", remedy)
    return names
