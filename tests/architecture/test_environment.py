"""Every variable that the code reads stands in `.env.example` with its meaning, and every one there is read."""

import ast
import re

from tests.architecture.sources import ROOT, calls, modules, text_of

READERS = re.compile(r"(env|env\.\w+|os\.environ\.get|os\.getenv)")
MADE_BY_OTHERS = {"DJANGO_SETTINGS_MODULE"}


def read_by(tree: ast.AST) -> set[str]:
    """Return the names that a tree reads from the environment."""
    by_call = {text_of(call.args[0]) for call in calls(tree) if call.args and READERS.fullmatch(ast.unparse(call.func))}
    by_key = {
        text_of(node.slice)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ"
    }
    return {name for name in by_call | by_key if name} - MADE_BY_OTHERS


def test_the_example_lists_what_is_read_and_nothing_else():
    read = {name for _path, tree in modules() for name in read_by(tree)}
    listed = set(re.findall(r"^# ?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert "SECRET_KEY" in read
    assert read == listed


def test_the_operations_page_explains_each_of_them():
    listed = set(re.findall(r"^# ?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    table = re.findall(r"^\| (`[A-Z].*?) \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)

    assert {name for cell in table for name in re.findall(r"`([A-Z_]+)`", cell)} == listed


def test_reading_a_variable_is_recognised():
    code = 'env("A"); env.bool("B", default=True); os.environ["C"]; os.environ.get("D"); {}.get("E"); environment["F"]'

    assert read_by(ast.parse(code)) == {"A", "B", "C", "D"}
