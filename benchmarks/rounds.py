"""Measures paths in turn, round after round, so that what is compared has met the same neighbours."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Cpu = dict[str, float]


@dataclass
class Sample:
    """One measurement."""

    events: int
    seconds: float
    # Seconds per request, in order of size; empty for what is no HTTP.
    latencies: Sequence[float] = ()
    # Answers that should not have come, by status; see `client` for those below 100.
    errors: Counter[int] = field(default_factory=Counter)
    cpu: Cpu = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


@dataclass
class Path:
    """One way of doing something."""

    name: str
    # Does so many units of work.
    run: Callable[[int], Sample]
    # Events in a unit: a request, a batch, a period.
    per_unit: int = 1
    # Units of the first round, which warms up and tells how many units the later ones need.
    first: int = 100
    least: int = 1
    most: int = 1_000_000
    # About how long a round of it takes; None: as the run says.
    seconds: float | None = None
    samples: list[Sample] = field(default_factory=list)
    # Of the round that is not measured.
    warm_up_errors: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """The median of events per second."""
        return statistics.median(sample.rate for sample in self.samples)

    @property
    def errors(self) -> Counter[int]:
        """All answers that should not have come."""
        return sum((sample.errors for sample in self.samples), Counter())

    def latency(self, share: float) -> float | None:
        """Return the latency below which this share of all requests stayed, in seconds."""
        found = sorted(latency for sample in self.samples for latency in sample.latencies)
        return found[min(int(len(found) * share), len(found) - 1)] if found else None

    def cpu_per_event(self, server: str) -> float:
        """Return a server's seconds of CPU per event."""
        return sum(one.cpu.get(server, 0) for one in self.samples) / max(1, sum(one.events for one in self.samples))


def run_rounds(paths: Sequence[Path], *, rounds: int, seconds: float, ends: float, say: Callable[[str], None]) -> None:
    """
    Warm every path up, then measure each of them once in every round, for about so many seconds.

    After the first, no round begins that would probably last beyond `ends` (of `time.perf_counter`): a crowded machine has fewer rounds.
    """
    units = {path.name: path.first for path in paths}
    for number in range(rounds + 1):
        began = time.perf_counter()
        for path in paths:
            sample = path.run(units[path.name])
            if number:
                path.samples.append(sample)
            else:
                path.warm_up_errors = sample.errors
            wanted = int(sample.rate * (path.seconds or seconds) / path.per_unit)
            units[path.name] = min(max(path.least, wanted), path.most)
        say(f"round {number} of {rounds}" if number else "warmed up")
        now = time.perf_counter()
        if number and number < rounds and now + (now - began) > ends:
            say("no time for more rounds")
            return


def ratio(ours: Path, theirs: Path) -> float:
    """Return the median of the ratios of each round."""
    return statistics.median(
        mine.rate / max(other.rate, 1e-9) for mine, other in zip(ours.samples, theirs.samples, strict=True)
    )
