"""
The books' invariants, as queries that return no row when the books are right.

Each names the rows that break it, and the tenant whose they are. They are run in one snapshot: hourly (`services.auditing`), by
`manage.py audit`, and after every test that touches the books.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from billing_site.database import read_only
from billing_site.finite import COLUMNS_WITHOUT_CHECK

# The largest tables are read whole, which takes longer than a request may.
STATEMENT_MINUTES = 5


@dataclass(frozen=True, slots=True)
class Invariant:
    """
    What must hold, and the query for what breaks it.

    The query's first column is `tenant_id`, unless the invariant is of the whole installation; the next one names the row.
    """

    name: str
    says: str
    sql: str
    of_tenant: bool = True


@dataclass(frozen=True, slots=True)
class Breach:
    """A row that breaks an invariant. `tenant` is the code of whose it is; None where it is nobody's."""

    invariant: str
    says: str
    tenant: str | None
    row: str


@dataclass(frozen=True, slots=True)
class BrokenBooks:
    """How many rows of a tenant (None: of the installation, or of no known tenant) break an invariant, and one of them."""

    invariant: str
    tenant_id: int | None
    rows: int
    example: str


def breaches(*, rows_max: int = 20) -> list[Breach]:
    """Return what breaks the books, at most `rows_max` rows of each invariant, all seen in one snapshot."""
    found = []
    with _snapshot() as cursor:
        for invariant in INVARIANTS:
            tenant = "(SELECT code FROM subscriptions_tenant WHERE id = tenant_id)" if invariant.of_tenant else "NULL"
            cursor.execute(f"SELECT {tenant}, broken.* FROM ({invariant.sql}) AS broken LIMIT {rows_max}")
            for code, *row in cursor:
                found.append(Breach(invariant.name, invariant.says, code, " · ".join(str(value) for value in row)))
    return found


def broken_books() -> list[BrokenBooks]:
    """Return whose books break which invariant: every tenant, however many rows there are, all seen in one snapshot."""
    found = []
    with _snapshot() as cursor:
        for invariant in INVARIANTS:
            tenant = "tenant_id" if invariant.of_tenant else "NULL::bigint"
            cursor.execute(
                f"SELECT {tenant}, count(*), min(broken::text) FROM ({invariant.sql}) AS broken GROUP BY 1 ORDER BY 1"
            )
            found += [BrokenBooks(invariant.name, *row) for row in cursor]
    return found


def refresh_statistics() -> None:
    """
    Let the planner see the tables as they are: it has been seen to take minutes over a table that had just grown from nothing.

    Before an audit that nobody waits for; it samples rows, and takes seconds at millions of them.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "ANALYZE metering_eventkey, metering_usageevent, metering_posting, metering_ledgerentry, metering_segmenttotal"
        )


@contextmanager
def _snapshot() -> Iterator[Any]:
    """Yield a cursor for which time stands still, so that what is written meanwhile breaks nothing; it only reads."""
    is_own = not connection.in_atomic_block
    # A caller's transaction has its own view, which cannot be changed any more.
    with read_only() if is_own else transaction.atomic(), connection.cursor() as cursor:
        if is_own:
            cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_MINUTES}min'")
        yield cursor


INVARIANTS = (
    Invariant(
        "balance_is_its_entries",
        "used, covered and events of a balance are the sums of its ledger entries",
        """
        SELECT b.tenant_id, b.id, b.used, e.used, b.covered, e.covered, b.events, e.events
        FROM metering_meterbalance b LEFT JOIN (
            SELECT balance_id, sum(quantity) FILTER (WHERE kind = 'usage') AS used, sum(events) AS events,
                   sum(quantity) FILTER (WHERE kind IN ('usage', 'walk') AND grant_id IS NOT NULL) AS covered
            FROM metering_ledgerentry GROUP BY balance_id
        ) e ON e.balance_id = b.id
        WHERE b.used <> coalesce(e.used, 0) OR b.covered <> coalesce(e.covered, 0) OR b.events <> coalesce(e.events, 0)
        """,
    ),
    Invariant(
        "balance_is_its_segments",
        "used and events of a balance are the sums of its segments' totals",
        """
        SELECT b.tenant_id, b.id, b.used, s.used, b.events, s.events
        FROM metering_meterbalance b LEFT JOIN (
            SELECT balance_id, sum(quantity) AS used, sum(events) AS events FROM metering_segmenttotal GROUP BY balance_id
        ) s ON s.balance_id = b.id
        WHERE b.used <> coalesce(s.used, 0) OR b.events <> coalesce(s.events, 0)
        """,
    ),
    Invariant(
        "grant_conserves",
        "granted = burned + expired + voided + rolled over + remaining, and the ledger says the same",
        """
        SELECT g.tenant_id, g.id, g.quantity, g.burned, g.expired, g.voided, g.rolled_over
        FROM metering_creditgrant g LEFT JOIN (
            SELECT grant_id, sum(quantity) FILTER (WHERE kind IN ('grant', 'rescale')) AS granted,
                   sum(quantity) FILTER (WHERE kind IN ('usage', 'walk')) AS burned,
                   sum(quantity) FILTER (WHERE kind = 'expire') AS expired,
                   sum(quantity) FILTER (WHERE kind = 'void') AS voided,
                   sum(quantity) FILTER (WHERE kind = 'rollover') AS rolled_over
            FROM metering_ledgerentry WHERE grant_id IS NOT NULL GROUP BY grant_id
        ) e ON e.grant_id = g.id
        WHERE g.quantity <> coalesce(e.granted, 0) OR g.burned <> coalesce(e.burned, 0)
           OR g.expired <> coalesce(e.expired, 0) OR g.voided <> coalesce(e.voided, 0)
           OR g.rolled_over <> coalesce(e.rolled_over, 0) OR g.remaining < 0
        """,
    ),
    Invariant(
        "closed_leaves_nothing",
        "a closed balance has no grant of its own with something left",
        """
        SELECT b.tenant_id, b.id, g.id, g.remaining FROM metering_meterbalance b JOIN metering_creditgrant g ON g.balance_id = b.id
        WHERE b.closed_at IS NOT NULL AND g.remaining <> 0
        """,
    ),
    Invariant(
        "closed_burns_are_settled",
        "what no walk moves of a pool's grant any more is what closed balances have burned of it, and what has left it",
        """
        SELECT g.tenant_id, g.id, g.settled, e.burned, g.expired, g.voided, g.rolled_over
        FROM metering_creditgrant g LEFT JOIN (
            SELECT e.grant_id, sum(e.quantity) AS burned FROM metering_ledgerentry e
            JOIN metering_meterbalance b ON b.id = e.balance_id AND b.closed_at IS NOT NULL
            WHERE e.grant_id IS NOT NULL AND e.kind IN ('usage', 'walk') GROUP BY 1
        ) e ON e.grant_id = g.id
        WHERE g.balance_id IS NULL AND g.settled <> coalesce(e.burned, 0) + g.expired + g.voided + g.rolled_over
        """,
    ),
    Invariant(
        "rollover_is_what_rolled_over",
        "what has rolled over out of an allowance is the quantity of the grant that it became",
        """
        SELECT g.tenant_id, g.id, g.rolled_over, r.quantity FROM metering_creditgrant g
        LEFT JOIN metering_creditgrant r ON r.rolled_from_id = g.id WHERE g.rolled_over <> coalesce(r.quantity, 0)
        """,
    ),
    Invariant(
        "balance_is_cut_by_its_grants",
        "an open balance knows where grants of its pool start and end in its period, and whether any may be burned there",
        """
        SELECT b.tenant_id, b.id, b.cuts, r.cuts, b.is_wide FROM metering_meterbalance b
        JOIN subscriptions_billingperiod p ON p.id = b.period_id
        CROSS JOIN LATERAL (
            SELECT coalesce(array_agg(DISTINCT i.at ORDER BY i.at) FILTER (WHERE i.at > p.starts_at AND i.at < p.ends_at), '{}') AS cuts,
                   coalesce(bool_or(g.settled < g.quantity), false) AS is_wide
            FROM metering_creditgrant g
            LEFT JOIN LATERAL (SELECT greatest(g.effective_at, least(g.expires_at, g.voided_at)) AS at
                               WHERE least(g.expires_at, g.voided_at) IS NOT NULL) AS ends ON true
            CROSS JOIN LATERAL (VALUES (g.effective_at), (ends.at)) AS i (at)
            WHERE g.balance_id IS NULL AND (g.tenant_id, g.meter_id, g.pool) = (b.tenant_id, b.meter_id, b.pool)
              AND g.effective_at < p.ends_at AND greatest(g.effective_at, p.starts_at) < coalesce(ends.at, 'infinity')
        ) r WHERE b.closed_at IS NULL AND (b.cuts <> r.cuts OR (r.is_wide AND NOT b.is_wide))
        """,
    ),
    Invariant(
        "segments_start_where_they_may",
        "a segment with events starts with its period, a version, or a grant of its pool",
        """
        SELECT b.tenant_id, b.id, t.segment_at FROM metering_segmenttotal t JOIN metering_meterbalance b ON b.id = t.balance_id
        JOIN subscriptions_billingperiod p ON p.id = b.period_id
        WHERE t.events <> 0 AND t.segment_at <> p.starts_at AND t.segment_at <> ALL (b.cuts)
          AND NOT EXISTS (SELECT 1 FROM subscriptions_tierchange x WHERE x.period_id = p.id AND x.effective_at = t.segment_at)
        """,
    ),
    Invariant(
        "walks_move_nothing_away",
        "the walk entries of a posting sum to zero in every balance and segment",
        """
        SELECT min(tenant_id) AS tenant_id, posting_id, balance_id, segment_at, sum(quantity) FROM metering_ledgerentry
        WHERE kind = 'walk' GROUP BY 2, 3, 4 HAVING sum(quantity) <> 0
        """,
    ),
    Invariant(
        "ledger_has_no_orphan",
        "every ledger entry belongs to a posting, a balance and a tenant that agree with each other",
        """
        SELECT e.tenant_id, e.id FROM metering_ledgerentry e
        LEFT JOIN metering_posting p ON p.id = e.posting_id LEFT JOIN metering_meterbalance b ON b.id = e.balance_id
        LEFT JOIN metering_creditgrant g ON g.id = e.grant_id
        WHERE p.id IS NULL OR (e.balance_id IS NOT NULL AND (b.id IS NULL OR b.tenant_id <> e.tenant_id))
           OR (e.grant_id IS NOT NULL AND (g.id IS NULL OR g.tenant_id <> e.tenant_id))
        """,
    ),
    Invariant(
        "event_is_posted",
        "every counted event has its key and its posting, and every key its event",
        """
        SELECT t.id AS tenant_id, e.id, 'event without key or posting' FROM metering_usageevent e
        LEFT JOIN subscriptions_tenant t ON t.code = e.subject
        LEFT JOIN metering_eventkey k ON k.subject = e.subject AND k.event_id = e.id
        LEFT JOIN metering_posting p ON p.id = e.posting_id
        WHERE k.event_id IS NULL OR (e.posting_id IS NOT NULL AND p.id IS NULL)
        """,
    ),
    Invariant(
        "events_are_in_the_balance",
        "used is the sum of what its events count, with replays and reversals, where the meter adds up",
        """
        SELECT b.tenant_id, b.id, b.used, c.quantity FROM metering_meterbalance b
        JOIN subscriptions_meter m ON m.id = b.meter_id AND m.aggregation IN ('sum', 'count')
        LEFT JOIN (
            SELECT balance_id, sum(quantity) AS quantity FROM (
                SELECT (one ->> 0)::bigint AS balance_id, (one ->> 2)::numeric AS quantity
                FROM metering_usageevent e, jsonb_array_elements(e.counts) AS one
                UNION ALL SELECT balance_id, quantity FROM metering_eventcount
            ) counted GROUP BY balance_id
        ) c ON c.balance_id = b.id WHERE b.used <> coalesce(c.quantity, 0)
        """,
    ),
    Invariant(
        "values_are_of_their_events",
        "where the meter does not add up, a set's total is the value of those of its events that were not reversed",
        """
        WITH counted AS (
            SELECT e.id, e.occurred_at, e.source, e.event_id, (one ->> 0)::bigint AS balance_id, one ->> 1 AS dimension_key,
                   (one ->> 2)::numeric AS quantity, one ->> 3 AS seen
            FROM metering_usageevent e, jsonb_array_elements(e.counts) AS one
            WHERE e.type IN (SELECT event_type FROM subscriptions_meter WHERE aggregation NOT IN ('sum', 'count'))
            UNION ALL
            SELECT e.id, e.occurred_at, e.source, e.event_id, n.balance_id, n.dimension_key, n.quantity, n.seen
            FROM metering_eventcount n JOIN metering_usageevent e ON e.id = n.event_id WHERE n.kind = 'replay'
        ), kept AS (
            SELECT t.balance_id, t.dimension_key, t.quantity, t.events FROM metering_segmenttotal t
            UNION ALL
            SELECT c.balance_id, c.dimension_key, CASE m.aggregation
                WHEN 'max' THEN -max(c.quantity) WHEN 'unique_count' THEN -count(DISTINCT c.seen) ELSE
                -(array_agg(c.quantity ORDER BY c.occurred_at DESC, c.source COLLATE "C" DESC, c.event_id COLLATE "C" DESC))[1]
                END, -count(*)
            FROM counted c JOIN metering_meterbalance b ON b.id = c.balance_id
            JOIN subscriptions_meter m ON m.id = b.meter_id AND m.aggregation NOT IN ('sum', 'count')
            WHERE NOT EXISTS (SELECT 1 FROM metering_eventcount r
                              WHERE r.event_id = c.id AND r.kind = 'reversal' AND r.balance_id = c.balance_id)
            GROUP BY c.balance_id, c.dimension_key, m.aggregation
        )
        SELECT min(b.tenant_id) AS tenant_id, k.balance_id, k.dimension_key, sum(k.quantity), sum(k.events)
        FROM kept k JOIN metering_meterbalance b ON b.id = k.balance_id
        JOIN subscriptions_meter m ON m.id = b.meter_id AND m.aggregation NOT IN ('sum', 'count')
        GROUP BY 2, 3 HAVING sum(k.quantity) <> 0 OR sum(k.events) <> 0
        """,
    ),
    Invariant(
        "seen_values_are_counted",
        "a unique count is the number of values that some event still has",
        """
        SELECT b.tenant_id, b.id, b.used, count(s.digest) FROM metering_meterbalance b
        JOIN subscriptions_meter m ON m.id = b.meter_id AND m.aggregation = 'unique_count'
        LEFT JOIN metering_seenvalue s ON s.balance_id = b.id AND s.events > 0
        GROUP BY b.tenant_id, b.id, b.used HAVING b.used <> count(s.digest)
        """,
    ),
    Invariant(
        "holds_are_held",
        "held is the sum of the authorizations that are held, in units and in money, and nothing in a closed balance",
        """
        SELECT b.tenant_id, b.id, b.held, a.held, b.held_amount, a.amount FROM metering_meterbalance b
        LEFT JOIN (
            SELECT balance_id, sum(quantity) AS held, sum(amount_precise) AS amount
            FROM metering_authorization WHERE due_at IS NOT NULL GROUP BY balance_id
        ) a ON a.balance_id = b.id
        WHERE b.held <> coalesce(a.held, 0) OR b.held_amount <> coalesce(a.amount, 0) OR (b.closed_at IS NOT NULL AND b.held <> 0)
        """,
    ),
    Invariant(
        "holds_are_of_their_tenant",
        "an authorization holds of a balance of its tenant",
        """
        SELECT a.tenant_id, a.id, b.tenant_id AS other FROM metering_authorization a
        LEFT JOIN metering_meterbalance b ON b.id = a.balance_id WHERE b.tenant_id IS DISTINCT FROM a.tenant_id
        """,
    ),
    Invariant(
        "windows_are_of_their_events",
        "a bucket that still counts in a rolling window is the sum of what its events count",
        """
        SELECT k.tenant_id, k.meter_id, k.pool, k.window_seconds, k.bucket_at, k.quantity, c.quantity AS counted
        FROM metering_windowbucket k JOIN subscriptions_tenant t ON t.id = k.tenant_id
        LEFT JOIN subscriptions_testclock tc ON tc.id = t.test_clock_id
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(n.quantity), 0) AS quantity FROM metering_usageevent e
            CROSS JOIN LATERAL (
                SELECT (one ->> 0)::bigint AS balance_id, (one ->> 2)::numeric AS quantity FROM jsonb_array_elements(e.counts) AS one
                UNION ALL SELECT balance_id, quantity FROM metering_eventcount WHERE event_id = e.id
            ) n
            JOIN metering_meterbalance b ON b.id = n.balance_id AND (b.meter_id, b.pool) = (k.meter_id, k.pool)
            WHERE e.subject = t.code AND e.occurred_at >= k.bucket_at
              AND e.occurred_at < k.bucket_at + make_interval(secs => k.window_seconds / 60)
        ) c
        WHERE k.bucket_at > coalesce(tc.now, now()) - make_interval(secs => k.window_seconds + k.window_seconds / 60)
          AND k.quantity <> c.quantity
        """,
    ),
    Invariant(
        "booked_telescopes",
        "the deltas booked for a charge sum to the cumulative figure of the last booking",
        """
        SELECT * FROM (
            SELECT min(tenant_id) AS tenant_id, charge_id, period_id, kind, sum(amount_precise) AS booked,
                   (array_agg(amount_numerator / amount_denominator ORDER BY sequence DESC))[1] AS reached
            FROM metering_overagecharge GROUP BY 2, 3, 4
        ) b WHERE abs(booked - reached) > 0.00000000001
        """,
    ),
    Invariant(
        "closed_is_booked",
        "a closed balance that owes a booking has a due time for it",
        """
        SELECT tenant_id, id, used - covered, booked_overage FROM metering_meterbalance
        WHERE used - covered <> booked_overage AND due_at IS NULL AND parked_at IS NULL
        """,
    ),
    Invariant(
        "invoice_adds_up",
        "a final invoice's lines sum to its subtotal, and its total and amount due follow",
        """
        SELECT i.tenant_id, i.id, i.subtotal, l.lines, i.total, i.amount_due FROM invoices_invoice i
        LEFT JOIN (SELECT invoice_id, sum(amount) AS lines FROM invoices_invoiceline GROUP BY 1) l ON l.invoice_id = i.id
        WHERE i.status <> 'draft' AND (coalesce(l.lines, 0) <> i.subtotal
           OR i.total <> greatest(i.subtotal + i.tax, 0) OR i.amount_due <> i.total - i.credit_applied)
        """,
    ),
    Invariant(
        "numbers_are_gapless",
        "the numbers of a series are 1 to n, and the counter says n",
        """
        SELECT s.series, s.last_number, count(i.number), max(i.number) FROM invoices_numbersequence s
        LEFT JOIN invoices_invoice i ON i.series = s.series AND i.number IS NOT NULL GROUP BY s.series, s.last_number
        HAVING count(i.number) <> s.last_number OR coalesce(max(i.number), 0) <> s.last_number
        """,
        of_tenant=False,
    ),
    Invariant(
        "line_is_its_sources",
        "an overage line of a final invoice has sources, and a fee line bills one fee item of its amount",
        """
        SELECT i.tenant_id, l.id, l.kind, l.amount FROM invoices_invoiceline l
        JOIN invoices_invoice i ON i.id = l.invoice_id AND i.status NOT IN ('draft', 'void')
        LEFT JOIN invoices_invoicelinesource s ON s.line_id = l.id LEFT JOIN subscriptions_feeitem f ON f.id = s.fee_item_id
        GROUP BY i.tenant_id, l.id, l.kind, l.amount
        HAVING count(s.id) = 0 OR (l.kind IN ('fee', 'proration') AND coalesce(sum(f.amount), 0) <> l.amount)
        """,
    ),
    Invariant(
        "overage_lines_telescope",
        "the rounded lines of a charge in a period sum to the rounded cumulative amount that they bill",
        """
        SELECT * FROM (
            SELECT i.tenant_id, l.charge_id, l.period_id, l.kind,
                   (SELECT sum(x.amount) FROM invoices_invoiceline x JOIN invoices_invoice xi ON xi.id = x.invoice_id
                    WHERE x.charge_id = l.charge_id AND x.period_id = l.period_id AND x.kind = l.kind
                      AND xi.status NOT IN ('draft', 'void')) AS invoiced,
                   (SELECT sum(o.amount_precise) FROM metering_overagecharge o
                    JOIN invoices_invoicelinesource s ON s.overage_charge_id = o.id AND s.released_at IS NULL
                    JOIN invoices_invoiceline x ON x.id = s.line_id JOIN invoices_invoice xi ON xi.id = x.invoice_id
                    WHERE o.charge_id = l.charge_id AND o.period_id = l.period_id AND o.kind = l.kind
                      AND xi.status NOT IN ('draft', 'void')) AS precise
            FROM invoices_invoiceline l JOIN invoices_invoice i ON i.id = l.invoice_id
            WHERE l.charge_id IS NOT NULL AND i.status NOT IN ('draft', 'void') GROUP BY 1, 2, 3, 4
        ) t WHERE abs(invoiced - precise) >= 1
        """,
    ),
    Invariant(
        "closed_period_is_billed",
        "whatever a closed period owes stands on a live invoice once its subscription's next one is out",
        """
        SELECT tenant_id, period_id, charge_id, kind, min(id) FROM (
            SELECT o.*, free.at AS free_at, closing.at AS billed_at, sum(o.quantity) OVER up_to_here AS quantity_so_far,
                   sum(o.amount_precise) OVER up_to_here AS amount_so_far, lead(free.at) OVER up_to_here AS next_free_at
            FROM metering_overagecharge o JOIN subscriptions_billingperiod p ON p.id = o.period_id
            CROSS JOIN LATERAL (
                SELECT greatest(o.booked_at, max(s.released_at)) AS at, count(*) > 0 AS was_released
                FROM invoices_invoicelinesource s WHERE s.overage_charge_id = o.id
            ) free
            CROSS JOIN LATERAL (
                SELECT max(q.closed_at) AS at FROM invoices_invoice i JOIN subscriptions_billingperiod q ON q.id = i.period_id
                WHERE i.subscription_id = p.subscription_id AND i.reason IN ('period', 'final') AND i.status IN ('open', 'paid')
                  AND q.closed_at >= p.closed_at
            ) closing
            WHERE NOT EXISTS (SELECT 1 FROM invoices_invoicelinesource s
                              WHERE s.overage_charge_id = o.id AND s.released_at IS NULL)
            WINDOW up_to_here AS (PARTITION BY o.period_id, o.charge_id, o.kind ORDER BY free.at, free.was_released, o.id)
        ) unbilled GROUP BY 1, 2, 3, 4
        -- Free to be billed since it was booked or, later, released by a voided invoice: usage that was booked and taken back, before or
        -- after, has no line. Where a test clock stands still, the bookings of the closing have the same time as late usage and voided
        -- invoices after it: what was free before must come to nothing at one of them.
        HAVING bool_or(free_at < billed_at) AND NOT bool_or(
            free_at <= billed_at AND (next_free_at >= billed_at) IS NOT FALSE AND quantity_so_far = 0 AND abs(amount_so_far) < 1)
        """,
    ),
    Invariant(
        "periods_tile",
        "the periods of a subscription follow each other without a gap, but where a pause or an end parts two runs",
        """
        SELECT * FROM (
            SELECT tenant_id, id, starts_at, begins_run,
                   lag(ends_at) OVER (PARTITION BY subscription_id ORDER BY sequence) AS before
            FROM subscriptions_billingperiod
        ) p WHERE before IS NOT NULL AND before <> starts_at AND NOT (begins_run AND before < starts_at)
        """,
    ),
    Invariant(
        "credit_is_not_negative",
        "no tenant has used more credit than it had",
        """
        SELECT tenant_id, currency, sum(amount) FROM invoices_tenantcreditentry GROUP BY 1, 2 HAVING sum(amount) < 0
        """,
    ),
    Invariant(
        "no_edge_crosses_tenants",
        "an invoice, its period and its sources are one tenant's",
        """
        SELECT i.tenant_id, i.id FROM invoices_invoice i JOIN subscriptions_subscription s ON s.id = i.subscription_id
        LEFT JOIN subscriptions_billingperiod p ON p.id = i.period_id
        WHERE s.tenant_id <> i.tenant_id OR (p.id IS NOT NULL AND p.tenant_id <> i.tenant_id)
        """,
    ),
    Invariant(
        "guards_are_armed",
        "no guard trigger is switched off, and no constraint is left unchecked",
        """
        SELECT tgrelid::regclass::text, tgname::text FROM pg_trigger
        WHERE NOT tgisinternal AND tgenabled <> 'O' AND tgrelid::regclass::text ~ '^(subscriptions|metering|invoices)_'
        UNION ALL
        SELECT conrelid::regclass::text, conname::text FROM pg_constraint
        WHERE NOT convalidated AND conrelid::regclass::text ~ '^(subscriptions|metering|invoices)_'
        """,
        of_tenant=False,
    ),
    Invariant(
        "numbers_are_finite",
        "every numeric column has a check against NaN and infinities",
        COLUMNS_WITHOUT_CHECK,
        of_tenant=False,
    ),
)
