"""The product's own source files, as paths and as syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("billing_site", "subscriptions", "metering", "invoices")


def modules(*, without: tuple[str, ...] = ()) -> Iterator[tuple[Path, ast.Module]]:
    """Yield each module of the product, by its path from the root, except those with a room of `without` in their path."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = file.relative_to(ROOT)
            if not set(without) & set(path.parts):
                yield path, ast.parse(file.read_text(), filename=str(path))


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield every call in a tree."""
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def text_of(node: ast.AST | None) -> str | None:
    """Return the text of a string literal, else None."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
