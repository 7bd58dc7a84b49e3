"""
Only services write. Found by reading the code, so it knows no types: a call counts as a write by its name and its form.

`.update(name=…)` and `.create(name=…)` are a queryset's, `.update(mapping)` is a dict's or a hash's; `.delete()` without
an argument is a row's or a queryset's, `.delete(key)` a cache's. `super().save()` is the row's own.
"""

import ast
import re

import pytest

from tests.architecture.sources import calls, modules, text_of

MAY_WRITE = ("services", "migrations", "management")
LEASES = "billing_site/database.py"  # claims rows for services of every app: writes the lease, nothing else
ALWAYS_WRITES = {"bulk_create", "bulk_update", "get_or_create", "update_or_create", "save", "save_base"}
WRITES_WITH_FIELDS = {"create", "update"}
WRITING_SQL = re.compile(
    r"\s*(WITH\b.*\b)?(INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|TRUNCATE|COPY\s+\S+.*FROM)\b", re.S
)


def writes(tree: ast.AST) -> list[str]:
    """Return the calls of a tree that write, as "line: what"."""
    found = [f"{call.lineno}: {ast.unparse(call.func)}" for call in calls(tree) if is_write(call)]
    for node in ast.walk(tree):
        text = text_of(node)
        if text and WRITING_SQL.match(text):
            found.append(f"{node.lineno}: {text.strip()[:40]!r}")
    return found


def is_write(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or is_super(call.func.value):
        return False
    name = call.func.attr
    if name in ALWAYS_WRITES:
        return True
    if name in WRITES_WITH_FIELDS:
        return bool(call.keywords) and not call.args
    return name == "delete" and not call.args


def is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def test_nothing_outside_services_writes_a_row():
    elsewhere = [(str(path), tree) for path, tree in modules(without=MAY_WRITE) if str(path) != LEASES]

    assert [f"{path}:{write}" for path, tree in elsewhere for write in writes(tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        "tenant.save()",
        "Tenant.objects.filter(code='a').update(name='b')",
        "Tenant.objects.create(code='a')",
        "tenant.subscriptions.all().delete()",
        "LedgerEntry.objects.bulk_create(entries)",
        "Tenant.objects.get_or_create(code='a')",
        "cursor.execute('INSERT INTO tenant VALUES (1)')",
        "cursor.execute('WITH new AS (SELECT 1) UPDATE balance SET used = 1')",
    ],
)
def test_a_write_is_recognised(code):
    assert writes(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "names.update(other)",
        "digest.update(b'x')",
        "cache.delete('key')",
        "super().save(*args, **kwargs)",
        "cursor.execute('SELECT 1 FROM balance FOR UPDATE')",
        "Tenant.objects.filter(code='a').select_for_update(no_key=True)",
    ],
)
def test_what_only_looks_like_a_write_is_not_taken_for_one(code):
    assert not writes(ast.parse(code))
