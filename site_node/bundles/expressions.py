"""What of a MONAI config is data, and what would run: nothing here is ever evaluated, imported or called.

MONAI gives meaning to strings: `$...` is Python, `%...` takes text from this or another file, `@...` is what stands
elsewhere in the config; and to keys: `_target_` names a class or function to call, `_requires_`, `_mode_`, `imports`
and others say what runs first and how. Only references and allowed targets are taken in; all else is refused by name.
Source: MONAI, "Bundle Configuration" (docs.monai.io, config_syntax).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from site_node.errors import BundleError

EXPRESSION, MACRO, REFERENCE, TARGET = "$", "%", "@", "_target_"
SEPARATORS = ("::", "#")
PLAIN_KEYS = {TARGET, "_desc_", "_meta_"}
RUNNING_KEYS = {"imports", "initialize", "finalize"}
MOST_DEPTH = 40
MOST_NODES = 100_000

IsAllowed = Callable[[str], bool]
Path = tuple[str, ...]


def refusals_of(config: Any, is_allowed: IsAllowed) -> list[str]:
    """Return what of a config would run, each with where it stands: expressions, macros, keys, foreign targets."""
    found = []
    for path, key, value in _walk(config):
        where = "::".join((*path, key))
        reason = _reason(key, value, is_allowed)
        if reason is not None:
            found.append(f"{where}: {reason}")
    return found


def _reason(key: str, value: Any, is_allowed: IsAllowed) -> str | None:
    if key == TARGET:
        if not isinstance(value, str):
            return "a target that is no name"
        if value[:1] in (EXPRESSION, MACRO, REFERENCE):
            return "a target that is computed"
        return None if is_allowed(value) else f"the target {value[:80]!r} is not among those that are taken in"
    if key in RUNNING_KEYS and value:
        return "it says what Python runs"
    if len(key) > 2 and key.startswith("_") and key.endswith("_") and key not in PLAIN_KEYS:
        return f"the key {key[:40]!r} says how something runs"
    if isinstance(value, str) and value.startswith(EXPRESSION):
        return "a `$` expression, which is Python"
    if isinstance(value, str) and value.startswith(MACRO):
        return "a `%` macro, which takes text from elsewhere"
    return None


def _walk(config: Any) -> Iterator[tuple[Path, str, Any]]:
    waiting: list[tuple[Path, Any]] = [((), config)]
    nodes = 0
    while waiting:
        path, value = waiting.pop()
        items = list(_items(value))
        nodes += len(items)
        if len(path) > MOST_DEPTH or nodes > MOST_NODES:
            raise BundleError("The config is nested too deeply, or too large.", "It is no config of a model.")
        for key, inner in items:
            yield path, key, inner
            waiting.append(((*path, key), inner))


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), inner) for key, inner in value.items())
    elif isinstance(value, list):
        yield from ((str(number), inner) for number, inner in enumerate(value))


def resolved(config: Mapping[str, Any], value: Any) -> Any:
    """Return a part of a config with every reference replaced by what it means, without running anything.

    Raises: BundleError for a reference that leads nowhere, out of the config or in a circle.
    """
    return _resolved(config, value, ())


def _resolved(config: Mapping[str, Any], value: Any, seen: Path) -> Any:
    if len(seen) > MOST_DEPTH:
        raise BundleError("References lead from one to the next too often.", "It is no config of a model.")
    if isinstance(value, Mapping):
        return {str(key): _resolved(config, inner, (*seen, "")) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(config, inner, (*seen, "")) for inner in value]
    if isinstance(value, str) and value.startswith(REFERENCE):
        if value in seen:
            raise BundleError(f"The reference {value[:80]!r} leads in a circle.", "Mend the config.")
        return _resolved(config, _at(config, value), (*seen, value))
    if isinstance(value, str) and value[:1] in (EXPRESSION, MACRO):
        raise BundleError(f"{value[:80]!r} would have to be run to know what it means.", "State its value instead.")
    return value


def _at(config: Mapping[str, Any], reference: str) -> Any:
    name = reference[len(REFERENCE) :]
    for separator in SEPARATORS[1:]:
        name = name.replace(separator, SEPARATORS[0])
    found: Any = config
    for part in name.split(SEPARATORS[0]):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise BundleError(
                f"The reference {reference[:80]!r} leads to nothing in the config.", "Relative ones are not followed."
            )
    return found
