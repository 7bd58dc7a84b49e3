"""What differs between two documents, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from subscriptions.core.documents import join


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """
    Yield a line for each member that differs, with its place. Values of different types differ: true is no 1.

    >>> list(differences({"fee": "99", "bands": [1]}, {"fee": "89", "bands": [1, 2], "sso": True}))
    ['fee: 99 → 89', 'bands.1: new, 2', 'sso: new, true']
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _of_members(before, after, path)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _of_members(_numbered(before), _numbered(after), path)
    elif (type(before), before) != (type(after), after):
        yield f"{path}: {_shown(before)} → {_shown(after)}"


def _of_members(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        where = join(path, name)
        if name not in after:
            yield f"{where}: gone, was {_shown(before[name])}"
        elif name not in before:
            yield f"{where}: new, {_shown(after[name])}"
        else:
            yield from differences(before[name], after[name], where)


def _numbered(entries: Sequence[Any]) -> dict[str, Any]:
    return {str(position): entry for position, entry in enumerate(entries)}


def _shown(value: Any) -> str:
    match value:
        case None | "":
            return "nothing"
        case bool():
            return "true" if value else "false"
        case Mapping():
            return "{" + ", ".join(f"{name}: {_shown(member)}" for name, member in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)
