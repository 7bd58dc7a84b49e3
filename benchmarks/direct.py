"""What worker processes do: the product's services without HTTP."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from benchmarks.events import DATA, SOURCE, TYPE
from metering.services.ingest import record_events
from metering.services.requests import ACCEPTED, NewEvent, Record


def record(subject: str, batches: Sequence[Sequence[str]]) -> Callable[[], int]:
    """Record batches of events, given their ids: keys, events, ledger, balances, answers. Returns how many were accepted."""
    now = datetime.now(tz=UTC)
    requests = [Record([NewEvent(subject, SOURCE, one, TYPE, now, dict(DATA)) for one in ids], now) for ids in batches]

    def run() -> int:
        reports = [record_events([request])[0] for request in requests]
        return sum(outcome.status == ACCEPTED for report in reports for outcome in report.outcomes)

    return run
