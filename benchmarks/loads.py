"""How a path is made: requests of the client, or tasks of worker processes, with the CPU that the servers used for them."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

from benchmarks import events
from benchmarks.client import MISSING, Client, request_bytes
from benchmarks.rounds import Cpu, Path, Sample
from benchmarks.stage import Stage, cpu_of_tree
from benchmarks.workers import PROCESSES, Workers

BATCH_CONNECTIONS = 4
# So that the end of a measurement, when connections fall idle, weighs little.
BATCHES_LEAST = 3 * BATCH_CONNECTIONS
SINGLES_LEAST, SINGLES_LEAST_IN_A_ROW, SINGLES_MANY = 30, 4, 512
READ = frozenset({200})
ACCEPTED = frozenset({202})
HELD = frozenset({201})


class Loads:
    """Makes paths, and keeps account of the events that they send."""

    def __init__(self, stage: Stage, client: Client, key: str) -> None:
        self._stage, self._client, self._key = stage, client, key
        # New events sent so far, by address.
        self.sent = Counter[str]()
        # Holds of one token asked for so far, by address.
        self.held = Counter[str]()

    def gets(self, name: str, paths: Iterator[str], *, at_once: int) -> Path:
        """Return a path that reads, a request being its unit."""

        def prepare(units: int) -> list[bytes]:
            return [request_bytes("GET", path, key=self._key) for path in islice(paths, units)]

        return self._http(name, prepare, connections=at_once, allowed=READ, first=100, least=_least(at_once))

    def singles(self, name: str, path: str, subjects: Iterator[str], *, at_once: int) -> Path:
        """Return a path that posts single events, of the subjects in turn."""

        def prepare(units: int) -> list[bytes]:
            self.sent[path] += units
            bodies = (events.single(next(subjects), one) for one in events.new_ids(units))
            return [self._post(path, body) for body in bodies]

        return self._http(name, prepare, connections=at_once, first=max(50, at_once), least=_least(at_once))

    def holds(self, name: str, path: str, subjects: Iterator[str], *, at_once: int) -> Path:
        """Return a path that holds a token with each request, of the subjects in turn."""

        def prepare(units: int) -> list[bytes]:
            self.held[path] += units
            return [self._post(path, events.hold(next(subjects), one)) for one in events.new_ids(units)]

        least = _least(at_once)
        return self._http(name, prepare, connections=at_once, first=max(50, at_once), least=least, allowed=HELD)

    def batches(
        self, name: str, path: str, subjects: Iterator[str], *, size: int, tenants: int = 1, again: bool = False
    ) -> Path:
        """
        Return a path that posts batches, each of so many tenants.

        With `again` they have been sent before, and the repetition is measured.
        """

        def prepare(units: int) -> list[bytes]:
            self.sent[path] += units * size
            requests = [
                self._post(path, events.batch(list(islice(subjects, tenants)), events.new_ids(size)))
                for _ in range(units)
            ]
            if again:
                self._client.send(requests, connections=BATCH_CONNECTIONS)
            return requests

        return self._http(
            name,
            prepare,
            connections=BATCH_CONNECTIONS,
            per_unit=size,
            first=BATCHES_LEAST if again else BATCH_CONNECTIONS,
            least=BATCHES_LEAST,
        )

    def tasks(self, name: str, task: str, subject: str, *, size: int, workers: Workers) -> Path:
        """Return a path on which each worker process writes batches of a tenant of its own."""

        def run(units: int) -> Sample:
            share = max(1, units // PROCESSES)
            arguments = [
                (f"{subject}-{number}", [events.new_ids(size) for _ in range(share)]) for number in range(PROCESSES)
            ]
            before = self.cpu(workers)
            seconds, written = workers.timed(task, arguments)
            return sample(sum(written), size * share * PROCESSES, seconds, self.cpu_since(before, workers))

        return Path(name, run, per_unit=size, first=2 * PROCESSES, least=2 * PROCESSES)

    def cpu(self, workers: Workers | None = None) -> Cpu:
        """Return the CPU used so far; of processes that write without HTTP, theirs stands for the web server's."""
        used = self._stage.cpu()
        return used | {"web": sum(map(cpu_of_tree, workers.pids))} if workers else used

    def cpu_since(self, before: Cpu, workers: Workers | None = None) -> Cpu:
        """Return the CPU used since then."""
        return {server: used - before[server] for server, used in self.cpu(workers).items()}

    def _http(
        self,
        name: str,
        prepare: Callable[[int], list[bytes]],
        *,
        connections: int,
        first: int,
        least: int,
        per_unit: int = 1,
        allowed: frozenset[int] = ACCEPTED,
    ) -> Path:
        def run(units: int) -> Sample:
            requests = prepare(units)
            before = self.cpu()
            load = self._client.send(requests, connections=connections)
            cpu = self.cpu_since(before)
            errors = Counter({status: number for status, number in load.statuses.items() if status not in allowed})
            done = load.statuses.total() - errors.total()
            return Sample(done * per_unit, load.seconds, load.latencies, errors, cpu)

        return Path(name, run, per_unit=per_unit, first=first, least=least)

    def _post(self, path: str, body: bytes) -> bytes:
        return request_bytes("POST", path, key=self._key, body=body)


def _least(at_once: int) -> int:
    """Return so many requests that each connection sends a few, if that are not very many."""
    return max(SINGLES_LEAST, at_once, min(SINGLES_LEAST_IN_A_ROW * at_once, SINGLES_MANY))


def sample(done: int, wanted: int, seconds: float, cpu: Cpu) -> Sample:
    """Return a measurement without HTTP; what was not done counts as an error."""
    return Sample(done, seconds, errors=Counter({MISSING: wanted - done} if done < wanted else {}), cpu=cpu)
