"""A task that is rung or scheduled by name exists: a misspelt name would be work that nobody does."""

import ast
import importlib

from billing_site.celery import SCHEDULE, app
from tests.architecture.sources import calls, modules, text_of


def rung(tree: ast.AST) -> list[ast.expr]:
    """Return the first argument of every `ring(…)` and `doorbell.ring(…)`."""
    names = ("ring", "doorbell.ring")
    return [call.args[0] for call in calls(tree) if call.args and ast.unparse(call.func) in names]


def registered() -> set[str]:
    for package in ("subscriptions", "metering", "invoices"):
        importlib.import_module(f"{package}.tasks")
    app.finalize()
    return {name for name in app.tasks if not name.startswith("celery.")}


def test_every_doorbell_rings_a_task_that_exists():
    found = [(str(path), name) for path, tree in modules() for name in rung(tree)]

    assert [where for where, name in found if text_of(name) is None] == [], (
        "ring a literal name, so that it can be checked"
    )
    assert {text_of(name) for _where, name in found} - registered() == set()


def test_every_row_of_the_schedule_names_a_task_that_exists():
    assert {tick.task for tick in SCHEDULE} - registered() == set()


def test_every_row_of_the_schedule_says_why():
    assert [tick.task for tick in SCHEDULE if len(tick.why) < 40] == []


def test_every_route_names_a_task_that_exists():
    assert set(app.conf.task_routes) - registered() == set()


def test_a_task_is_named_after_its_app():
    assert {name.partition(".")[0] for name in registered()} <= {"subscriptions", "metering", "invoices"}
