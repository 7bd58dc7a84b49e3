"""One run: what has to be there, the rounds, and the page. Imported when Django is set up on the stage's servers."""

import time
from argparse import Namespace
from contextlib import ExitStack

from django.core.management import call_command
from django.core.wsgi import WSGIHandler
from django.db import connections

from benchmarks import closing, growth, population, table
from benchmarks.client import Client
from benchmarks.loads import Loads
from benchmarks.rounds import run_rounds
from benchmarks.scenarios import Suite
from benchmarks.stage import Stage
from benchmarks.workers import Workers
from billing_site.wsgi import application

EXACT = (
    "The books are exact: what was used is what was sent, and the hot tenants' included and overage usage add up to it."
)


class Run:
    """A run on a stage, as the command line's options say."""

    def __init__(self, stage: Stage, options: Namespace) -> None:
        self._stage, self._options = stage, options
        self._began = time.perf_counter()
        self._stack = ExitStack()

    def measure(self) -> tuple[str, bool]:
        """Measure, and return the page with whether the books are exact."""
        with self._stack:
            suite = self._suite()
            rows = [row for row in suite.rows if self._chosen(row.tag)]
            wanted = {name for row in rows for name in (row.ours, row.theirs)}
            paths = {name: path for name, path in suite.paths.items() if name in wanted}
            self._say("ready")
            run_rounds(
                list(paths.values()),
                rounds=self._options.rounds,
                seconds=self._options.seconds,
                ends=self._began + self._options.minutes * 60,
                say=self._say,
            )
            if any(path.errors for path in paths.values()):
                print(f"Unexpected answers; the web server's last errors:\n{self._stage.web_errors()}")
            inexact = suite.inexact()
            page = table.document(
                facts={**self._stage.facts(), "rounds": str(max(len(path.samples) for path in paths.values()))},
                rows=rows,
                paths=paths,
                memory=self._stage.web_memory(),
                notes=inexact or [EXACT],
                seconds=time.perf_counter() - self._began,
            )
            return page, not inexact

    def _suite(self) -> Suite:
        """Fill the databases, start the web server and the processes of the chosen rows, and return the paths."""
        call_command("migrate", verbosity=0)
        if self._chosen("closing"):
            self._copy_database(closing.DATABASE)
        with self._stage.superuser() as administrator:
            key = population.build(administrator)
        grown = {stored: self._grown(stored) for stored in self._growth()}
        self._stage.start_web()
        client = self._stack.enter_context(Client(self._stage.port, workers=self._stage.web_workers))
        loads = Loads(self._stage, client, key)
        workers = self._workers()
        suite = Suite(self._stage, loads, workers, shim=not isinstance(application, WSGIHandler))
        if self._chosen("closing"):
            self._add_closing(suite)
        if grown:
            suite.growth(grown)
        return suite

    def _add_closing(self, suite: Suite) -> None:
        rounds = self._options.rounds + 1
        periods = max(2, self._options.periods // rounds)
        if (
            periods > closing.SHARED
        ):  # whole chunks for each worker: a rest that one of them takes would measure the other's idling
            periods -= periods % closing.SHARED
        workers = self._workers(closing.DATABASE)
        # Each round takes as many for the product as for the floor.
        address = self._stage.superuser_url(closing.DATABASE)
        plan = workers.call("benchmarks.closing:build", address, 2 * periods * rounds)
        administrator = self._stack.enter_context(self._stage.superuser(closing.DATABASE))
        suite.closing(workers, administrator, plan, periods=periods)

    def _growth(self) -> list[int]:
        """Return the numbers of events to be stored before; none unless they are asked for: it takes minutes."""
        asked = self._options.growth is not None or "growth" in (self._options.only or ())
        return growth.sizes(self._options.growth or growth.SIZES) if asked and self._chosen("growth") else []

    def _grown(self, stored: int) -> Workers:
        self._say(f"storing {stored:,} events")
        name = growth.name_of(stored)
        self._copy_database(name)
        with self._stage.superuser(name) as administrator:
            growth.fill(administrator, stored)
        return self._workers(name)

    def _workers(self, *database: str) -> Workers:
        return self._stack.enter_context(Workers(self._stage.environment(*database)))

    def _copy_database(self, name: str) -> None:
        for connection in connections.all(initialized_only=True):  # a database that is in use cannot be copied
            connection.close()
            connection.close_pool()
        self._stage.copy_database(name)

    def _chosen(self, tag: str) -> bool:
        only = self._options.only
        return not only or any(tag == name or tag.startswith(f"{name}-") for name in only)

    def _say(self, what: str) -> None:
        print(f"{time.perf_counter() - self._began:5.0f} s  {what}", flush=True)
