"""
The floors: the same key and event rows into the same tables by psycopg, with the same durability, and nothing else.

No event is parsed, placed, counted or answered. The values of the rows are made before the clock runs; joining them for the wire is part of it.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from uuid import UUID

import msgspec
import psycopg

from benchmarks.events import DATA, SOURCE, TYPE
from billing_site.database import uuid7
from metering.core.identity import digest, fingerprint
from metering.services.arrays import bytes_array, columns, plain_array, text_array

UNNEST = """
WITH keys AS (
    INSERT INTO metering_eventkey (subject, digest, fingerprint, event_id, posting_id)
    SELECT k.*, %(posting)s FROM unnest(%(subjects)s::text[], %(digests)s::bytea[], %(fingerprints)s::bytea[], %(ids)s::uuid[]) AS k
    ON CONFLICT DO NOTHING
)
INSERT INTO metering_usageevent (id, subject, source, event_id, type, occurred_at, time_was_sent, data, counts, posting_id, unmatched_code)
SELECT e.*, %(posting)s, '' FROM unnest(
    %(ids)s::uuid[], %(subjects)s::text[], %(sources)s::text[], %(event_ids)s::text[], %(types)s::text[], %(times)s::timestamptz[],
    %(sent)s::bool[], %(data)s::jsonb[], %(counts)s::jsonb[]) AS e
"""
COPY_KEYS = "COPY metering_eventkey (subject, digest, fingerprint, event_id, posting_id) FROM STDIN"
COPY_EVENTS = """
COPY metering_usageevent (id, subject, source, event_id, type, occurred_at, time_was_sent, data, counts, posting_id, unmatched_code) FROM STDIN
"""

Key = tuple[str, bytes, bytes, UUID]
Event = tuple[UUID, str, str, str, str, str, str, str, str]


def unnest(subject: str, batches: Sequence[Sequence[str]]) -> Callable[[], int]:
    """Insert batches, each by one statement and transaction; returns the number of rows of events."""
    prepared = [_rows(subject, ids) for ids in batches]
    connection = _connection()

    def run() -> int:
        for keys, events in prepared:
            subjects, digests, fingerprints, ids = columns(keys, 4)
            _, _, sources, event_ids, types, times, sent, data, counts = columns(events, 9)
            connection.execute(
                UNNEST,
                {
                    "posting": uuid7(),
                    "subjects": text_array(subjects),
                    "digests": bytes_array(digests),
                    "fingerprints": bytes_array(fingerprints),
                    "ids": plain_array(ids),
                    "sources": text_array(sources),
                    "event_ids": text_array(event_ids),
                    "types": text_array(types),
                    "times": text_array(times),
                    "sent": plain_array(sent),
                    "data": text_array(data),
                    "counts": text_array(counts),
                },
                prepare=True,
            )
        return sum(map(len, batches))

    return run


def copy(subject: str, batches: Sequence[Sequence[str]]) -> Callable[[], int]:
    """Copy batches, each in one transaction; returns the number of rows of events."""
    prepared = [_rows(subject, ids) for ids in batches]
    connection = _connection()

    def run() -> int:
        for keys, events in prepared:
            posting = str(uuid7())
            with connection.transaction(), connection.cursor() as cursor:
                with cursor.copy(COPY_KEYS) as stream:
                    stream.write(_lines((of, f"\\\\x{one.hex()}", f"\\\\x{content.hex()}", str(id), posting)
                                        for of, one, content, id in keys))  # fmt: skip
                with cursor.copy(COPY_EVENTS) as stream:
                    stream.write(_lines((str(row[0]), *row[1:], posting, "") for row in events))
        return sum(map(len, batches))

    return run


def _rows(subject: str, ids: Sequence[str]) -> tuple[list[Key], list[Event]]:
    """Return the rows of keys, in their order, and those of events."""
    now = datetime.now(tz=UTC)
    data = msgspec.json.encode(DATA).decode()
    content = fingerprint(TYPE, DATA, now)
    counts = f'[[1,"{{}}","{DATA["total_tokens"]}"]]'
    keyed = sorted((digest(SOURCE, one), one) for one in ids)
    uuids = [uuid7() for _ in keyed]
    keys = [(subject, key, content, uuid) for (key, _), uuid in zip(keyed, uuids, strict=True)]
    events = [
        (uuid, subject, SOURCE, one, TYPE, now.isoformat(), "t", data, counts)
        for (_, one), uuid in zip(keyed, uuids, strict=True)
    ]
    return keys, events


def _lines(rows: Iterable[Sequence[str]]) -> str:
    # None of these values holds a tab, a line break or a backslash.
    return "".join(["\t".join(row) + "\n" for row in rows])


@cache
def _connection() -> psycopg.Connection:
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
