"""Reads and writes the rows of events: identity keys, the events themselves, the posting; and what Redis knows of the keys."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from uuid import UUID

import msgspec

from billing_site import cache
from billing_site.database import uuid7s
from billing_site.prepared import run
from metering.core.identity import Content, differing_fields
from metering.core.measuring import Reading
from metering.selectors.events import stored_contents
from metering.services.arrays import bytes_array, columns, plain_array, text_array, time_array, uuid_array
from metering.services.candidates import Candidate, Group
from metering.services.requests import ACCEPTED, CONFLICT, DUPLICATE, REJECTED, UNMATCHED, Outcome
from subscriptions.core.money import plain

# Redis forgets a batch after two days; PostgreSQL forgets no event.
REMEMBERED_SECONDS = 2 * 24 * 3600
# Requests with fewer events are not worth a question to Redis.
BATCH_MIN = 20

# How long to wait for locks is set before the first row is claimed: NULL leaves the connection's own setting.
# Keys are claimed in the order of the arrays. `IS TRUE` keeps the look-up a hashed one, whatever number of rows the planner expects.
_INSERT = """
WITH sent AS MATERIALIZED (
    SELECT e.* FROM (SELECT set_config('lock_timeout', COALESCE(%s, current_setting('lock_timeout')), true)) AS patience,
         unnest(%s::uuid[], %s::text[], %s::bytea[], %s::bytea[], %s::text[], %s::text[], %s::text[],
                %s::timestamptz[], %s::bool[], %s::jsonb[], %s::jsonb[], %s::text[])
         AS e (id, subject, digest, fingerprint, source, event_id, type, occurred_at, time_was_sent, data, counts, unmatched_code)
), claimed AS (
    INSERT INTO metering_eventkey (subject, digest, fingerprint, event_id, posting_id)
    SELECT subject, digest, fingerprint, id, %s::uuid FROM sent ON CONFLICT DO NOTHING RETURNING event_id
), stored AS (
    INSERT INTO metering_usageevent (id, subject, source, event_id, type, occurred_at, time_was_sent, data, counts, posting_id,
                                     unmatched_code)
    SELECT id, subject, source, event_id, type, occurred_at, time_was_sent, data, counts,
           CASE WHEN unmatched_code = '' THEN %s::uuid END, unmatched_code
    FROM sent WHERE (id IN (SELECT event_id FROM claimed)) IS TRUE
)
SELECT id, NULL FROM sent WHERE (id IN (SELECT event_id FROM claimed)) IS NOT TRUE
UNION ALL SELECT NULL, COALESCE(sum(id), 0)::bigint FROM subscriptions_meter
"""

_READ_KEYS = """
SELECT k.subject, k.digest, k.fingerprint, k.event_id, k.posting_id FROM metering_eventkey k
JOIN unnest(%s::text[], %s::bytea[]) AS wanted (subject, digest) USING (subject, digest)
"""


Batch = tuple[str, Sequence[Candidate]]
"""The events of one large request, and the key under which Redis knows it."""


def answer_known(group: Group, posting_id: UUID) -> Sequence[Batch]:
    """
    Answer the events of batches that Redis knows and PostgreSQL confirms; the others go the normal way. Return all batches, for `remember`.

    No repeat is ever answered on Redis's word, and without Redis every event goes the normal way. Redis is told of whole
    requests, and only of large ones: a small one's repeat costs as little on the normal way (ADR 0003).
    """
    batches = [(_key(batch), batch) for batch in group.batches(BATCH_MIN)]
    known = cache.get_many([key for key, _ in batches])
    if known:
        repeats = [one for (_, batch), value in zip(batches, known, strict=True) if value is not None for one in batch]
        answer_repeats(repeats, posting_id=posting_id)
    return batches


def answer_repeats(candidates: Sequence[Candidate], *, posting_id: UUID | None = None) -> None:
    """
    Answer those of the events whose identity is stored already: same content a duplicate, other content a conflict.

    Keys that carry `posting_id` are the caller's own writes before an ambiguous COMMIT, and were accepted.
    """
    if not candidates:
        return
    subjects, digests = columns([candidate.identity for candidate in candidates], 2)
    rows = run(_READ_KEYS, [text_array(subjects), bytes_array(digests)])
    stored = {(row[0], bytes(row[1])): row[2:] for row in rows}
    for candidate in candidates:
        known = stored.get(candidate.identity)
        if known is None:
            continue
        fingerprint, event_id, written_by = known
        if written_by == posting_id and posting_id is not None:
            if not candidate.counts and not candidate.unmatched_code:
                continue  # not classified yet: it goes the normal way, and is found again
            status = ACCEPTED if candidate.counts else UNMATCHED
            candidate.outcome = Outcome(status, candidate.unmatched_code, candidate.unmatched_detail, event_id)
        else:
            status = DUPLICATE if bytes(fingerprint) == candidate.fingerprint else CONFLICT
            candidate.outcome = Outcome(status, event_id=event_id)


def answer_rejected_repeats(group: Group) -> None:
    """Answer rejected events that are stored already as what they are: identity goes before the window."""
    rejected = [one for one in group.candidates if one.outcome is not None and one.outcome.status == REJECTED]
    answer_repeats(rejected)


def insert(
    candidates: Sequence[Candidate], posting_id: UUID, *, lock_timeout_ms: int | None = None
) -> tuple[list[Candidate], int]:
    """
    Claim the identities, store the events that got theirs, and return these; the others are answered as repeats.

    The second answer is the sum of the meters' ids, by which a caller sees whether it knew all that could count (`Meters.sum_of_ids`).

    A key that another transaction is claiming is waited for. All writers claim in key order, so that they wait and do not deadlock.
    With `lock_timeout_ms` the transaction waits no longer than this for any lock, here and later.
    """
    ordered = sorted(candidates, key=_identity)
    for candidate, event_id in zip(ordered, uuid7s(len(ordered)), strict=True):
        candidate.uuid = event_id
    events = [candidate.event for candidate in ordered]
    *repeated, (_, sum_of_meter_ids) = run(
        _INSERT,
        [
            None if lock_timeout_ms is None else str(lock_timeout_ms),
            uuid_array([candidate.uuid for candidate in ordered]),
            text_array([event.subject for event in events]),
            bytes_array([candidate.digest for candidate in ordered]),
            bytes_array([candidate.fingerprint for candidate in ordered]),
            text_array([event.source for event in events]),
            text_array([event.id for event in events]),
            text_array([event.type for event in events]),
            time_array([candidate.occurred_at for candidate in ordered]),
            plain_array([event.time is not None for event in events]),
            text_array([candidate.text for candidate in ordered]),
            text_array([_counts_document(candidate) for candidate in ordered]),
            text_array([candidate.unmatched_code for candidate in ordered]),
            posting_id,
            posting_id,
        ],
    )
    if not repeated:
        return ordered, sum_of_meter_ids
    without_key = {event_id for event_id, _ in repeated}
    answer_repeats([one for one in ordered if one.uuid in without_key], posting_id=posting_id)
    return [one for one in ordered if one.uuid not in without_key], sum_of_meter_ids


def explain_conflicts(group: Group) -> None:
    """Name the fields in which conflicting events differ from the stored ones."""
    conflicts = [candidate for candidate in group.candidates if candidate.decided.status == CONFLICT]
    if not conflicts:
        return
    stored = stored_contents([(one.event.subject, one.decided.event_id) for one in conflicts])
    for candidate in conflicts:
        outcome = candidate.decided
        kept = stored.get(outcome.event_id)
        sent = Content(candidate.event.type, candidate.event.data, candidate.event.time)
        outcome.fields = differing_fields(kept, sent) if kept is not None else ()
        outcome.code = "conflict"
        names = ", ".join(outcome.fields) or "its content"
        outcome.detail = f"An event with this source and id is stored already, and differs in {names}."


def remember(batches: Sequence[Batch]) -> None:
    """Tell Redis the batches that are stored now, so that their repeats find the short path."""
    stored = {
        key: b"1"
        for key, batch in batches
        if all(one.outcome is not None and one.outcome.event_id is not None for one in batch)
    }
    cache.set_many(stored, seconds=REMEMBERED_SECONDS)


_identity = attrgetter("identity")


def _key(batch: Sequence[Candidate]) -> str:
    """Return the key of a request: a digest of its events' identities, in their order."""
    identities = b"".join(
        [subject.encode() + digest for subject, digest in [candidate.identity for candidate in batch]]
    )
    return cache.key(batch[0].event.subject, "batch", blake2b(identities, digest_size=16).hexdigest())


def _counts_document(candidate: Candidate) -> str:
    """Return [[balance, dimension key, quantity], …]; quantities are texts, so that no JSON reader makes them floats."""
    rows = [
        f'{_beginning(one.balance.id, one.dimension_key)}{plain(one.quantity)}"{_seen(one.reading)}]'
        for one in candidate.counts
    ]
    return "[" + ",".join(rows) + "]"


def _seen(reading: Reading | None) -> str:
    """Return the digest of a unique count's value as a further member, else nothing."""
    return "" if reading is None or reading.seen is None else f',"{reading.seen}"'


@lru_cache(maxsize=10_000)
def _beginning(balance_id: int, dimension_key: str) -> str:
    return f'[{balance_id},{msgspec.json.encode(dimension_key).decode()},"'
