"""A config as dotted keys, as in `--set`, and the differences of two configs."""

import json
from typing import Any

ABSENT = "(absent)"  # in place of the value of a field that one config does not have


def dotted(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every field that is not a group itself, by its dotted key."""
    fields: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            fields.update(dotted(value, f"{prefix}{key}."))
        else:
            fields[f"{prefix}{key}"] = value
    return fields


def value_text(value: Any) -> str:
    """A field's value as in `--set`."""
    return value if isinstance(value, str) else json.dumps(value)


def differing(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """The dotted keys whose values differ, of keys in both configs; a key missing in an old record had its default."""
    ours, theirs = dotted(here), dotted(there)
    return sorted(key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key])


def alike(here: dict[str, Any], there: dict[str, Any]) -> bool:
    """Whether two configs agree in every field that both have."""
    return not differing(here, there)


def config_differences(here: dict[str, Any], there: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(dotted key, value here, value there) of each field that differs, sorted by key."""
    ours, theirs = dotted(here), dotted(there)
    texts = [
        (key, *(value_text(fields[key]) if key in fields else ABSENT for fields in (ours, theirs)))
        for key in sorted(ours.keys() | theirs.keys())
    ]
    return [(key, one, other) for key, one, other in texts if one != other]
