"""
The hot path of `POST /events`: bytes and headers in, status and bytes out.

Knows neither Django's requests nor DRF, so that a view and a thin WSGI shim can both call it. Does not read events (`wire`), and stores
nothing (`metering.services.committer`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from billing_site.http.problems import FieldError, problem_bytes, translate
from billing_site.http.wire import plain, timestamp
from metering.api import wire
from metering.selectors.balances import BalanceView
from metering.services import committer
from metering.services.requests import (
    ACCEPTED,
    CONFLICT,
    DUPLICATE,
    REJECTED,
    UNMATCHED,
    IngestReport,
    NewEvent,
    Outcome,
    Record,
    Rejected,
)

RETRY_AFTER_SECONDS = "1"

# A single event's status by what became of it; a rejection has exceptions below.
_STATUSES = {ACCEPTED: 202, UNMATCHED: 202, DUPLICATE: 200, CONFLICT: 409, REJECTED: 422}
_REJECTION_STATUSES = {"clock_advancing": 409, "body_too_large": 413, "too_deep": 400}
_NO_PROBLEM = frozenset({ACCEPTED, DUPLICATE})


class Answer(NamedTuple):
    """An HTTP answer; `headers` beyond Content-Type, which follows from the status: a problem document from 400 on."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def handle(body: bytes, headers: Mapping[str, str], now: datetime) -> Answer:
    """
    Record the events of a request, and answer what became of each.

    `headers` has lower-case names (those that `wire.parse` reads); `now` is the wall time of receipt. One event: 202 accepted or
    unmatched, 200 duplicate, 409 conflict, 422 rejected. A batch: 202, or 422 when all of it was rejected. Never raises: what cannot be read
    or stored is a problem document, and then nothing was stored, unless a 503 says that it is unknown. Sending a request again is safe.
    """
    try:
        parsed = wire.parse(body, headers)
        report = _record(parsed.events, now)
    except Exception as exception:
        error = translate(exception)
        document = problem_bytes(error.status, error.code, error.title, error.detail, error.errors)
        return Answer(error.status, document, error.headers)
    if parsed.single:
        return _answer_one(parsed.events[0], report)
    return _answer_many(parsed.events, report)


def wire_headers(meta: Mapping[str, Any]) -> dict[str, str]:
    """Pick the headers that say what the body is out of a WSGI environment, with lower-case names."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in meta.items() if name[:8] == "HTTP_CE_"}
    headers["content-type"] = meta.get("CONTENT_TYPE") or ""
    headers["content-encoding"] = meta.get("HTTP_CONTENT_ENCODING") or ""
    return headers


def _record(events: Sequence[NewEvent | Rejected], now: datetime) -> IngestReport:
    if any(type(event) is NewEvent for event in events):
        return committer.submit(Record(events, now))
    # Nothing to store: such a request need not wait for the database.
    refused = (event for event in events if isinstance(event, Rejected))
    return IngestReport([Outcome(REJECTED, event.code, event.detail, None, (event.path,)) for event in refused], [])


def _answer_one(event: NewEvent | Rejected, report: IngestReport) -> Answer:
    outcome = report.outcomes[0]
    status = _STATUSES[outcome.status]
    if status < 400:
        document = _summary([event], report)
        document["event"] = str(outcome.event_id)
        return Answer(status, msgspec.json.encode(document), {})
    if outcome.status == CONFLICT:
        errors = [
            FieldError(path, "conflict", "Differs from the event that was stored first.") for path in outcome.fields
        ]
        title = "Another event has this identity"
        return Answer(
            status,
            _refusal(status, outcome.code or CONFLICT, title, outcome.detail, errors, event=str(outcome.event_id)),
            {},
        )
    status = _REJECTION_STATUSES.get(outcome.code, status)
    retry = {"Retry-After": RETRY_AFTER_SECONDS} if status == 409 else {}
    errors = _errors_of(event, outcome)
    return Answer(status, _refusal(status, outcome.code, "The event was rejected", outcome.detail, errors), retry)


def _answer_many(events: Sequence[NewEvent | Rejected], report: IngestReport) -> Answer:
    document = _summary(events, report)
    if document["rejected"] < len(events):
        return Answer(202, msgspec.json.encode(document), {})
    errors = [
        FieldError(f"{index}.{error.path}" if error.path else str(index), error.code, error.message)
        for index, (event, outcome) in enumerate(zip(events, report.outcomes, strict=True))
        for error in _errors_of(event, outcome)
    ]
    detail = "No event of the batch was stored; `problems` says why."
    return Answer(422, _refusal(422, "all_rejected", "All events were rejected", detail, errors, **document), {})


def _summary(events: Sequence[NewEvent | Rejected], report: IngestReport) -> dict[str, Any]:
    counts = Counter(outcome.status for outcome in report.outcomes)
    return {
        "accepted": counts[ACCEPTED],
        "duplicates": counts[DUPLICATE],
        "conflicts": counts[CONFLICT],
        "rejected": counts[REJECTED],
        "unmatched": counts[UNMATCHED],
        "problems": [
            _problem_of(index, events[index], outcome)
            for index, outcome in enumerate(report.outcomes)
            if outcome.status not in _NO_PROBLEM
        ],
        "balances": [balance_document(balance) for balance in report.balances],
    }


def _problem_of(index: int, event: NewEvent | Rejected, outcome: Outcome) -> dict[str, Any]:
    document: dict[str, Any] = {
        "index": index,
        "id": event.id,
        "status": outcome.status,
        "code": outcome.code or outcome.status,
        "detail": outcome.detail,
    }
    if outcome.status == CONFLICT:
        document["fields"] = list(outcome.fields)
    return document


def _errors_of(event: NewEvent | Rejected, outcome: Outcome) -> list[FieldError]:
    paths: Iterable[str] = (event.path,) if isinstance(event, Rejected) else outcome.fields or ("",)
    return [FieldError(path, outcome.code, outcome.detail) for path in paths]


def _refusal(status: int, code: str, title: str, detail: str, errors: Iterable[FieldError], **members: Any) -> bytes:
    """Encode a problem document with further members, as RFC 9457 (3.2) allows."""
    document = problem_bytes(status, code, title, detail, errors)
    return msgspec.json.encode({**msgspec.json.decode(document), **members}) if members else document


def balance_document(balance: BalanceView) -> dict[str, Any]:
    """
    Return a pool's position as the API shows it: quantities in meter units and the amount in the tenant's currency, as exact strings.

    The amount is not rounded: an invoice line will be, once.
    """
    return {
        "tenant": balance.tenant,
        "meter": balance.meter,
        "dimensions": balance.dimensions,
        "period_ends_at": timestamp(balance.period_ends_at),
        "used": plain(balance.used),
        "included": plain(balance.included),
        "remaining": plain(balance.remaining),
        "overage": plain(balance.overage),
        "overage_amount_precise": plain(balance.overage_amount_precise),
        "state": balance.state,
    }
