"""The events of a run: one shape for every path, so that all carry, parse and store the same."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec

TOKENS = 7
SOURCE = "gateway-eu"
TYPE = "llm.completion"
DATA = {"model": "opus", "input_tokens": 5, "output_tokens": 2, "total_tokens": TOKENS}

_numbers = count(1)
_time = datetime.now(tz=UTC)


def new_ids(number: int) -> list[str]:
    """Return ids that no event of this run has had."""
    return [f"req_{next(_numbers):010d}" for _ in range(number)]


def document(subject: str, event_id: str) -> dict[str, Any]:
    """Return an event as a gateway sends it."""
    return {"id": event_id, "source": SOURCE, "type": TYPE, "subject": subject, "time": _time, "data": DATA}


def single(subject: str, event_id: str) -> bytes:
    """Return the body of a request with one event."""
    return msgspec.json.encode(document(subject, event_id))


def batch(subjects: Sequence[str], ids: Sequence[str]) -> bytes:
    """Return the body of a request with many events, of the subjects in turn."""
    return msgspec.json.encode(
        [document(subjects[index % len(subjects)], event_id) for index, event_id in enumerate(ids)]
    )


def hold(tenant: str, key: str) -> bytes:
    """Return the body of a request to hold one token, for longer than a run takes."""
    return msgspec.json.encode({"tenant": tenant, "meter": "tokens", "quantity": 1, "key": key, "ttl_seconds": 86_400})
