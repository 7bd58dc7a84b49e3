"""
Documents as YAML: texts, whole numbers, true, false, null, lists and objects, and nothing else that YAML could mean.

Owns the text form alone. What a document says is judged by who reads it.
"""

import re
from typing import Any

import yaml

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,29})", re.ASCII)
_BREAK = re.compile("[\n\r\x85\u2028\u2029]")
_TAG = "tag:yaml.org,2002:"


class NotReadable(ValueError):
    """The text is no such document; the message says what to mend, and in which line."""


def read_yaml(text: str) -> Any:
    """
    Read one document.

    A number that is not whole must stand in quotes, because YAML would read it as a binary float, which has lost digits; so must a number
    that YAML 1.1 would read as another (010, 1_000, 1:30). A date without quotes is the text that it is. Names that come twice in an
    object, and references to other parts of the text, are refused. Raises NotReadable.

    >>> read_yaml('fee: "99.00"')
    {'fee': '99.00'}
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader that reads less)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise NotReadable(f"Line {mark.line + 1}: {error.problem}." if mark else f"{error.problem}.") from error
    except yaml.YAMLError as error:
        raise NotReadable("The text has characters that YAML does not allow.") from error
    except RecursionError:
        raise NotReadable("The text nests too deeply.") from None


def write_yaml(document: Any) -> str:
    """
    Write one document, its members in their order. read_yaml(write_yaml(document)) == document, always.

    >>> write_yaml({"fee": "99.00", "charges": [{"meter": "tokens"}]})
    "fee: '99.00'\\ncharges:\\n  - meter: tokens\\n"
    """
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")))


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse what refers to another part."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="a reference to another part of the text is not read", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a name that comes twice."""
        names = [key.value for key, _ in node.value]
        for position, (key, _) in enumerate(node.value):
            if key.value in names[:position]:
                raise yaml.MarkedYAMLError(problem=f"{key.value} comes twice here", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write what comes twice twice."""
        return True

    def represent_str(self, data: str) -> Any:
        """Escape line breaks: written as they are, some would be read as a space."""
        return self.represent_scalar(f"{_TAG}str", data, style='"' if _BREAK.search(data) else None)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        """Indent lists below their name."""
        return super().increase_indent(flow, False)


_Dumper.add_representer(str, _Dumper.represent_str)


def _whole(loader: _Loader, node: Any) -> int:
    if _WHOLE.fullmatch(node.value) is None:
        raise yaml.MarkedYAMLError(problem=f'write "{node.value}" in quotes', problem_mark=node.start_mark)
    return int(node.value)


def _no_float(loader: _Loader, node: Any) -> Any:
    problem = f'write "{node.value}" in quotes: as it stands it is a binary float, which loses digits'
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


_Loader.add_constructor(f"{_TAG}int", _whole)
_Loader.add_constructor(f"{_TAG}float", _no_float)
_Loader.add_constructor(f"{_TAG}timestamp", lambda loader, node: node.value)
