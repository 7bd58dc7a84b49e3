"""
Ingestion with millions of events stored: databases side by side, one empty and the others filled by SQL.

The stored events are those of the tenants that are measured, and their keys are digests, which come in no order: so every new key falls
somewhere into an index of that size, as it does for a tenant of that age.
"""

from collections.abc import Sequence

import psycopg

SIZES = (1_000_000, 5_000_000)
FILL = 1_000_000  # in a statement
_KEYS = """
INSERT INTO metering_eventkey (subject, digest, fingerprint, event_id, posting_id)
SELECT 'direct-' || n %% 2, decode(md5('stored' || n), 'hex'), decode(md5('content' || n), 'hex'), lpad(to_hex(n), 32, '0')::uuid, md5('posting')::uuid
FROM generate_series(%s::int, %s::int) n
"""
_EVENTS = """
INSERT INTO metering_usageevent (id, subject, source, event_id, type, occurred_at, time_was_sent, data, counts, posting_id, unmatched_code)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'direct-' || n %% 2, 'gateway-eu', 'stored_' || n, 'llm.completion', now() - n * interval '1 millisecond', true,
       '{"model": "opus", "input_tokens": 5, "output_tokens": 2, "total_tokens": 7}', '[[1, "{}", "7"]]', md5('posting')::uuid, ''
FROM generate_series(%s::int, %s::int) n
"""


def name_of(stored: int) -> str:
    """Return the name of the database that holds so many events."""
    return f"grown_{stored}"


def fill(administrator: psycopg.Connection, stored: int) -> None:
    """Store so many events, past triggers, and let PostgreSQL settle."""
    for first in range(1, stored + 1, FILL):
        for statement in (_KEYS, _EVENTS):
            administrator.execute(statement, [first, min(first + FILL - 1, stored)])
    administrator.execute("VACUUM (ANALYZE) metering_eventkey, metering_usageevent")
    administrator.execute("CHECKPOINT")


def sizes(wanted: Sequence[int]) -> list[int]:
    """Return the sizes to be measured: the empty one first."""
    return [0, *sorted({size for size in wanted if size > 0})]
