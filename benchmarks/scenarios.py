"""What is measured: the rows of the table, each with the path that is compared with another, its gate and its aim."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, cycle, islice, repeat

import psycopg

from benchmarks import closing, events, growth, population
from benchmarks.closing import Closing
from benchmarks.loads import Loads, sample
from benchmarks.rounds import Path, Sample
from benchmarks.stage import Stage
from benchmarks.workers import PROCESSES, Workers

CONCURRENCIES = (1, 32, 64, 128)
HOT_CONNECTIONS = 500
BATCHES = (100, 1000)
# After a time without Redis, until everything that had given it up asks again.
RECOVERY_SECONDS = 1.5
# The product's address, which a shim may serve before Django does, and the same view under an address that a shim does not know.
EVENTS, VIEW = "/api/v1/events", "/api/v1/bench/events"
HOLDS, HOLDS_VIEW, NAIVE_HOLDS = "/api/v1/authorizations", "/api/v1/bench/authorizations", "/bench/naive/holds"
HELLO, NAIVE, NAIVE_BATCH, LEAN_BATCH = (
    "/bench/hello",
    "/bench/naive/events",
    "/bench/naive/batch",
    "/bench/naive/lean-batch",
)

Wanted = tuple[float, float] | None


@dataclass(frozen=True)
class Row:
    """A ratio: how many events per second one path does, against another; `wanted` are its gate and its aim."""

    # By which it is chosen.
    tag: str
    title: str
    ours: str
    theirs: str
    wanted: Wanted = None


class Suite:
    """All paths, by name, and the rows that compare them."""

    def __init__(self, stage: Stage, loads: Loads, workers: Workers, *, shim: bool) -> None:
        self._stage, self._loads, self._workers = stage, loads, workers
        self._few = cycle(population.many_tenants()[: population.FEW])
        self._many = cycle(population.many_tenants())
        self._door = "shim" if shim else "view"
        self.paths: dict[str, Path] = {}
        self.rows: list[Row] = []
        for at_once in CONCURRENCIES:
            self._singles(at_once)
        for size in BATCHES:
            self._batches(size)
        self._hot()
        self._mixed()
        self._duplicates()
        self._balances()
        self._gate()
        self._redis_down()

    def _singles(self, at_once: int) -> None:
        hello, naive = f"hello, {at_once} at once", f"single, naive, {at_once} at once"
        gated: dict[str, tuple[Wanted, Wanted]] = (
            {"view": ((0.45, 0.8), (6, 12)), "shim": ((0.9, 1.5), (12, 25))} if at_once == 64 else {}
        )
        self._add(self._loads.gets(hello, repeat(HELLO), at_once=at_once))
        for door, address in {"view": VIEW, self._door: EVENTS if self._door == "shim" else VIEW}.items():
            name = f"single, {door}, {at_once} at once"
            against_hello, against_naive = gated.get(door, (None, None))
            self._add(self._loads.singles(name, address, self._few, at_once=at_once))
            self._row(f"single-{at_once}", f"{name}, against hello", name, hello, against_hello)
            self._row(f"single-{at_once}", f"{name}, against naive", name, naive, against_naive)
        self._add(self._loads.singles(naive, NAIVE, self._few, at_once=at_once))

    def _batches(self, size: int) -> None:
        tag, ours, direct, naive = (f"batch-{size}", f"batch, HTTP, {size}", f"record_events, {size}",
                                    f"batch, naive, {size}")  # fmt: skip
        for floor in ("unnest", "copy"):
            self._add(
                self._loads.tasks(
                    f"{floor}, {size}", f"benchmarks.floors:{floor}", "floor", size=size, workers=self._workers
                )
            )
        self._add(self._loads.tasks(direct, "benchmarks.direct:record", "direct", size=size, workers=self._workers))
        self._add(self._loads.batches(ours, EVENTS, self._few, size=size))
        self._add(self._loads.batches(naive, NAIVE_BATCH, self._few, size=size))
        lean = f"batch, naive without its look-ups, {size}"
        self._add(self._loads.batches(lean, LEAN_BATCH, self._few, size=size))
        of_floor: Wanted = (0.45, 0.7) if size == 1000 else None
        for floor, wanted in (("unnest", of_floor), ("copy", None)):
            self._row(tag, f"batches of {size:,}, record_events, against {floor}", direct, f"{floor}, {size}", wanted)
            self._row(tag, f"batches of {size:,}, HTTP, against {floor}", ours, f"{floor}, {size}", wanted)
        of_naive: Wanted = (5, 10) if size == 1000 else None
        self._row(tag, f"batches of {size:,}, HTTP, against naive (bulk_create)", ours, naive, of_naive)
        self._row(tag, f"batches of {size:,}, HTTP, against naive without its look-up for each event", ours, lean)

    def _hot(self) -> None:
        at_once = HOT_CONNECTIONS
        self._add(self._loads.singles("hot", EVENTS, repeat(population.HOT), at_once=at_once))
        self._add(self._loads.singles("hot, naive", NAIVE, repeat(population.NAIVE_HOT), at_once=at_once))
        self._row("hot", f"one hot tenant, {at_once} at once, against naive", "hot", "hot, naive", (10, 25))

    def _mixed(self) -> None:
        self._add(self._loads.singles("mixed, single", EVENTS, self._many, at_once=64))
        title = "single events of 10,000 tenants, 64 at once, against 100 tenants"
        self._row("mixed", title, "mixed, single", self._usual_single)
        self._add(self._loads.batches("mixed, batch", EVENTS, self._many, size=1000, tenants=1000))
        title = "batches of 1,000 events of as many tenants, against one tenant"
        self._row("mixed", title, "mixed, batch", "batch, HTTP, 1000")

    def _duplicates(self) -> None:
        self._add(self._loads.batches("duplicates", EVENTS, self._few, size=1000, again=True))
        title = "batches of 1,000 known duplicates, against new ones"
        self._row("duplicates", title, "duplicates", "batch, HTTP, 1000", (2, 5))

    def _balances(self) -> None:
        addresses = (f"/api/v1/tenants/{code}/balances" for code in self._few)
        self._add(self._loads.gets("balances", addresses, at_once=64))
        self._row("balances", "GET balances, 64 at once, against hello", "balances", "hello, 64 at once", (0.7, 0.9))

    def _gate(self) -> None:
        hello, gated = "hello, 64 at once", {"view": (0.4, 0.8), "shim": (0.8, 1.3)}
        for door, address in {"view": HOLDS_VIEW, self._door: HOLDS if self._door == "shim" else HOLDS_VIEW}.items():
            name = f"authorizations, {door}, 64 at once"
            self._add(self._loads.holds(name, address, self._few, at_once=64))
            self._row("gate", f"{name}, against hello", name, hello, gated[door])
        self._add(self._loads.holds("authorizations, hot", HOLDS, repeat(population.HOT), at_once=64))
        naive = "authorizations, hot, a lock per request"
        self._add(self._loads.holds(naive, NAIVE_HOLDS, repeat(population.NAIVE_HOT), at_once=64))
        title = "authorizations of one hot tenant, 64 at once, against a lock per request"
        self._row("gate", title, "authorizations, hot", naive, (3, 10))

    def _redis_down(self) -> None:
        for what, like in (
            ("single events, 64 at once", self._usual_single),
            ("batches of 1,000", "batch, HTTP, 1000"),
        ):
            self._add(self._without_redis(self.paths[like]))
            self._row("redis", f"{what}, Redis down, against up", f"{like}, Redis down", like, (0.5, 0.9))

    def _without_redis(self, usual: Path) -> Path:
        def run(units: int) -> Sample:
            with self._stage.without_valkey():
                measured = usual.run(units)
            time.sleep(RECOVERY_SECONDS)
            return measured

        return Path(f"{usual.name}, Redis down", run, per_unit=usual.per_unit, first=usual.first, least=usual.least)

    def closing(self, workers: Workers, administrator: psycopg.Connection, plan: Closing, *, periods: int) -> None:
        """Add the closing of so many periods in each round, among copies that are enough for all rounds."""
        copies = count(1)

        def ours(units: int) -> Sample:
            chosen = list(islice(copies, units))
            closing.release(administrator, chosen)
            before = self._loads.cpu(workers)
            seconds, _ = workers.timed("benchmarks.closing:sweep", [()] * PROCESSES)
            cpu = self._loads.cpu_since(before, workers)
            return sample(closing.invoices_of(administrator, chosen), units, seconds, cpu)

        def floor(units: int) -> Sample:
            chosen = list(islice(copies, units))
            parts = [(plan, part[0], part[-1]) for part in (chosen[: units // 2], chosen[units // 2 :])]
            before = self._loads.cpu(workers)
            seconds, done = workers.timed("benchmarks.closing:bulk", parts)
            return sample(sum(done), units, seconds, self._loads.cpu_since(before, workers))

        # As many in every round, so that the workers always share whole chunks.
        self._add(Path("closing, bulk SQL", floor, first=periods, least=periods, most=periods))
        self._add(Path("closing, sweep", ours, first=periods, least=periods, most=periods))
        title = "closing periods, three lines each, two workers, against bulk SQL"
        self._row("closing", title, "closing, sweep", "closing, bulk SQL", (0.3, 0.6))

    def growth(self, workers: Mapping[int, Workers]) -> None:
        """Add ingestion with events stored: processes on a database for each number of them, the empty one first."""
        names = {stored: f"record_events, 1000, {stored:,} stored" for stored in workers}
        for stored, own in workers.items():
            path = self._loads.tasks(names[stored], "benchmarks.direct:record", "direct", size=1000, workers=own)
            self._add(path)
        empty, *others = workers
        for stored in others:
            title = f"batches of 1,000 with {stored:,} events stored, against none"
            self._row("growth", title, names[stored], names[empty], (0.7, 0.9) if stored == max(growth.SIZES) else None)

    def inexact(self) -> list[str]:
        """Compare the books with what was sent and answered; name what differs. Broken answers leave it open what was stored."""
        unexpected = [
            f"{path.name}{'' if path.errors else ', warming up'}"
            for path in self.paths.values()
            if path.errors or path.warm_up_errors
        ]
        if unexpected:
            where = "; ".join(unexpected)
            return [
                f"The books were not compared with what was sent, as some answers were not the expected ones: {where}."
            ]
        sent = self._loads.sent
        books = {
            "The product's": (population.used(), sent[EVENTS] + sent[VIEW]),
            "The naive": (population.naive_used(), sent[NAIVE] + sent[NAIVE_BATCH] + sent[LEAN_BATCH]),
        }
        faults = [
            f"{whose} books say that {used} tokens were used; {number * events.TOKENS} were sent."
            for whose, (used, number) in books.items()
            if used != number * events.TOKENS
        ]
        ours, naive = population.held()
        asked = self._loads.held
        if (ours, naive) != (asked[HOLDS] + asked[HOLDS_VIEW], asked[NAIVE_HOLDS]):
            faults.append(f"{ours} tokens are held, and {naive} by the naive view; asked for were {dict(asked)}.")
        for code, (used, covered, overage) in population.hot_positions().items():
            if (covered, overage) != (min(used, population.INCLUDED), max(used - population.INCLUDED, 0)):
                faults.append(f"{code} used {used}, of which {covered} are covered and {overage} overage.")
        return faults

    @property
    def _usual_single(self) -> str:
        return f"single, {self._door}, 64 at once"

    def _add(self, path: Path) -> None:
        self.paths[path.name] = path

    def _row(self, tag: str, title: str, ours: str, theirs: str, wanted: Wanted = None) -> None:
        self.rows.append(Row(tag, title, ours, theirs, wanted))
