"""Reads and writes the rows of events: identity keys, the events themselves, the posting; and what Redis knows of the keys."""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from django.db import connection

from billing_site import cache
from billing_site.database import uuid7
from metering.core.identity import Content, differing_fields
from metering.selectors.events import stored_contents
from metering.services.arrays import bytes_array, columns, plain_array, text_array
from metering.services.candidates import Candidate, Group
from metering.services.requests import ACCEPTED, CONFLICT, DUPLICATE, REJECTED, UNMATCHED, Outcome
from subscriptions.core.money import plain

# Redis forgets a key after two days; PostgreSQL never does.
REMEMBERED_SECONDS = 2 * 24 * 3600

_encode = msgspec.json.Encoder(decimal_format="number").encode

_INSERT_KEYS = """
INSERT INTO metering_eventkey (subject, digest, fingerprint, event_id, posting_id)
SELECT k.*, %s FROM unnest(%s::text[], %s::bytea[], %s::bytea[], %s::uuid[]) AS k
ON CONFLICT DO NOTHING RETURNING event_id
"""

_READ_KEYS = """
SELECT k.subject, k.digest, k.fingerprint, k.event_id, k.posting_id FROM metering_eventkey k
JOIN unnest(%s::text[], %s::bytea[]) AS wanted (subject, digest) USING (subject, digest)
"""

_INSERT_EVENTS = """
INSERT INTO metering_usageevent (id, subject, source, event_id, type, occurred_at, time_was_sent, data, counts, posting_id,
                                 unmatched_code)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::bool[], %s::jsonb[],
                     %s::jsonb[], %s::uuid[], %s::text[])
"""


def answer_known(group: Group, posting_id: UUID) -> None:
    """
    Answer the events whose keys Redis knows and PostgreSQL confirms; the others go the normal way.

    No repeat is ever answered on Redis's word, and without Redis every event goes the normal way.
    """
    candidates = group.candidates
    known = cache.get_many([_key(candidate) for candidate in candidates])
    if known:
        repeats = [candidate for candidate, value in zip(candidates, known, strict=True) if value is not None]
        answer_repeats(repeats, posting_id=posting_id)


def answer_repeats(candidates: Sequence[Candidate], *, posting_id: UUID | None = None) -> None:
    """
    Answer those of the events whose identity is stored already: same content a duplicate, other content a conflict.

    Keys that carry `posting_id` are the caller's own writes before an ambiguous COMMIT, and were accepted.
    """
    if not candidates:
        return
    subjects, digests = columns([candidate.identity for candidate in candidates], 2)
    with connection.cursor() as cursor:
        cursor.execute(_READ_KEYS, [text_array(subjects), bytes_array(digests)])
        stored = {(row[0], bytes(row[1])): row[2:] for row in cursor}
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


def insert_keys(candidates: Sequence[Candidate], posting_id: UUID) -> list[Candidate]:
    """
    Claim the identities, in key order, and return the events that got theirs; the others are answered as repeats.

    A key that another transaction is claiming is waited for. All writers sort alike, so that they wait and do not deadlock.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.identity)
    for candidate in ordered:
        candidate.uuid = uuid7()
    with connection.cursor() as cursor:
        cursor.execute(
            _INSERT_KEYS,
            [
                posting_id,
                text_array(candidate.event.subject for candidate in ordered),
                bytes_array(candidate.digest for candidate in ordered),
                bytes_array(candidate.fingerprint for candidate in ordered),
                plain_array(candidate.uuid for candidate in ordered),
            ],
        )
        claimed = {row[0] for row in cursor}
    answer_repeats([one for one in ordered if one.uuid not in claimed], posting_id=posting_id)
    return [candidate for candidate in ordered if candidate.uuid in claimed]


def insert_events(candidates: Sequence[Candidate], posting_id: UUID) -> None:
    """Store the events, each with what it counts and the posting that counted it."""
    rows = [
        (
            candidate.uuid,
            candidate.event.subject,
            candidate.event.source,
            candidate.event.id,
            candidate.event.type,
            candidate.occurred_at.isoformat(),
            candidate.event.time is not None,
            _encode(candidate.event.data).decode(),
            _counts_document(candidate),
            posting_id if candidate.counts else None,
            candidate.unmatched_code,
        )
        for candidate in candidates
    ]
    if not rows:
        return
    ids, subjects, sources, event_ids, types, times, sent, data, counts, postings, codes = columns(rows, 11)
    with connection.cursor() as cursor:
        cursor.execute(
            _INSERT_EVENTS,
            [
                plain_array(ids),
                text_array(subjects),
                text_array(sources),
                text_array(event_ids),
                text_array(types),
                text_array(times),
                plain_array(sent),
                text_array(data),
                text_array(counts),
                plain_array(postings),
                text_array(codes),
            ],
        )


def limit_lock_waits(milliseconds: int) -> None:
    """Let the running transaction wait no longer than this for any lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(milliseconds)])


def insert_posting(posting_id: UUID, kind: str) -> None:
    """Write the posting to which ledger entries are about to belong."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO metering_posting (id, kind) VALUES (%s, %s)", [posting_id, kind])


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


def remember(group: Group) -> None:
    """Tell Redis the keys that are stored now, so that their repeats find the short path."""
    stored = [one for one in group.candidates if one.outcome is not None and one.outcome.event_id is not None]
    cache.set_many({_key(candidate): b"1" for candidate in stored}, seconds=REMEMBERED_SECONDS)


def _key(candidate: Candidate) -> str:
    return cache.key(candidate.event.subject, "event", candidate.digest.hex())


def _counts_document(candidate: Candidate) -> str:
    """Return [[balance, dimension key, quantity], …]; quantities are texts, so that no JSON reader makes them floats."""
    return _encode([[one.balance.id, one.dimension_key, plain(one.quantity)] for one in candidate.counts]).decode()
