"""`--set privacy.epsilon=3`: change a study's YAML before it is checked."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from compose.errors import ComposeError
from protocol.study import MAX_STUDY_BYTES, StudySpec, parse_study


def read_study(path: Path, settings: Sequence[str] = ()) -> StudySpec:
    """Read a study's file, apply `key=value` settings, and check it.

    Raises: ComposeError if the file cannot be read or is no YAML, SpecificationError if the study is illegal.
    """
    try:
        if path.stat().st_size > MAX_STUDY_BYTES:
            raise ComposeError(f"{path} is larger than {MAX_STUDY_BYTES} bytes, so it is no study. Name another file.")
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ComposeError(f"{path} cannot be read: {error.strerror}. Name the study's YAML file.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ComposeError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}. Correct it.") from error
    for setting in settings:
        data = with_setting(data, setting)
    return parse_study(data)


def with_setting(data: Any, setting: str) -> Any:
    """Return the data with one dotted key set; the value is YAML.

    >>> with_setting({"privacy": {"epsilon": 8}}, "privacy.epsilon=null")
    {'privacy': {'epsilon': None}}

    Raises: ComposeError if the setting is not of the form key=value, or a part of the key holds no keys.
    """
    key, equals, text = setting.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ComposeError(f"--set {setting!r}: expected dotted.key=value, such as privacy.epsilon=3.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ComposeError(f"--set {setting!r}: the value is no YAML.") from error
    changed = deepcopy(data)
    inner = changed
    for part in path[:-1]:
        inner = inner.setdefault(part, {}) if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        raise ComposeError(f"--set {setting!r}: {'.'.join(path[:-1])} holds no keys in this study.")
    inner[path[-1]] = value
    return changed
