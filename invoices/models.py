"""Rows of what is owed: invoices, their lines and what each line was made of, numbers, the tenant's credit; journals of what was run; backtests."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from billing_site.database import UnboundedDecimalField, uuid7
from metering.models import OverageCharge
from subscriptions.models import (
    BillingPeriod,
    Charge,
    FeeItem,
    Subscription,
    Tenant,
    TestClock,
    TierChange,
    TierVersion,
)
from subscriptions.models.fields import Due, MoneyField, due_index, one_of, representable


class Invoice(models.Model):
    """A demand for money. Its content is final once it is open (a trigger keeps it); status and payments move on."""

    class Reason(models.TextChoices):
        OPENING = "opening"
        PERIOD = "period"
        FINAL = "final"
        # A change of tier that was to be billed at once.
        CHANGE = "change"
        LATE = "late"
        MANUAL = "manual"

    class Status(models.TextChoices):
        DRAFT = "draft"
        OPEN = "open"
        PAID = "paid"
        VOID = "void"

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="invoices")
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="invoices")
    # The period that it opens or closes.
    period = models.ForeignKey(BillingPeriod, null=True, blank=True, on_delete=models.PROTECT, related_name="invoices")
    reason = models.CharField(max_length=10, choices=Reason)
    # The change that it bills.
    change = models.ForeignKey(TierChange, null=True, blank=True, on_delete=models.PROTECT, related_name="invoices")
    # 1, 2, … of the late, manual and change invoices of a period; 1 of the others.
    sequence = models.PositiveIntegerField(default=1)
    status = models.CharField(max_length=10, choices=Status, default=Status.DRAFT)
    currency = models.CharField(max_length=3)
    # Gapless within its series ("INV", or "TEST" on a test clock), taken when finalised.
    series = models.CharField(max_length=10, blank=True, default="")
    number = models.PositiveBigIntegerField(null=True, blank=True)
    # Σ of the rounded lines; may be negative.
    subtotal = MoneyField(default=0)
    tax = MoneyField(default=0)
    # The subtotal plus tax, at least 0; what was below goes to the tenant's credit.
    total = MoneyField(default=0)
    # Tenant credit used, after tax.
    credit_applied = MoneyField(default=0)
    amount_due = MoneyField(default=0)
    # Who it is for, as written when it was finalised: {"name", "email", "country", "tax_ids"}.
    billed_to = models.JSONField(default=dict)
    drafted_at = models.DateTimeField()
    finalized_at = models.DateTimeField(null=True, blank=True)
    voided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["period", "reason", "sequence"],
                condition=~Q(status="void"),
                name="invoice_once_per_period_and_reason",
            ),
            models.UniqueConstraint(fields=["change"], condition=~Q(status="void"), name="invoice_once_per_change"),
            models.CheckConstraint(
                condition=Q(reason="change", change__isnull=False) | (~Q(reason="change") & Q(change__isnull=True)),
                name="invoice_of_change",
            ),
            models.UniqueConstraint(
                fields=["series", "number"], condition=Q(number__isnull=False), name="invoice_number"
            ),
            models.CheckConstraint(
                condition=Q(status="draft", number__isnull=True, finalized_at__isnull=True)
                | (~Q(status="draft") & Q(number__isnull=False, finalized_at__isnull=False)),
                name="invoice_number_when_final",
            ),
            models.CheckConstraint(
                condition=Q(total__gte=0, credit_applied__gte=0, amount_due=F("total") - F("credit_applied"))
                & Q(amount_due__gte=0),
                name="invoice_adds_up",
            ),
            representable("subtotal", name="invoice_subtotal_unit"),
            representable("tax", name="invoice_tax_unit"),
            representable("total", name="invoice_total_unit"),
            representable("credit_applied", name="invoice_credit_unit"),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="invoice_by_tenant"),
            models.Index(fields=["subscription"], name="invoice_by_subscription"),
        ]

    def __str__(self) -> str:
        return self.printed_number or f"draft {self.public_id}"

    @property
    def printed_number(self) -> str | None:
        """The number as it is printed: INV-000042; none for a draft."""
        return f"{self.series}-{self.number:06d}" if self.number is not None else None


class InvoiceLine(models.Model):
    """One line: what, how much of it, at which price, and the components that explain the amount."""

    class Kind(models.TextChoices):
        FEE = "fee"
        PRORATION = "proration"
        OVERAGE = "overage"
        MINIMUM = "minimum"

    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="lines")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind)
    description = models.TextField()
    # Meter units of overage that this line bills, for reading; 1 for a fee.
    quantity = UnboundedDecimalField(default=1)
    # The price of one unit where there is one price; null where bands or rates decide.
    unit_amount = UnboundedDecimalField(null=True, blank=True)
    currency = models.CharField(max_length=3)
    # The one rounded figure of the line.
    amount = MoneyField()
    # What was rounded: the exact amount, or its first 18 decimals where it never ends.
    amount_precise = UnboundedDecimalField()
    # For an overage line: {"cumulative": …, "invoiced_before": …} and the rater's components.
    components = models.JSONField(default=list)
    # The period whose usage or fee it bills; an older one for late usage.
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="+")
    tier_version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="+")
    charge = models.ForeignKey(Charge, null=True, blank=True, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "number"], name="invoice_line_number"),
            representable("amount", name="invoice_line_amount_unit"),
        ]
        indexes = [models.Index(fields=["period", "charge"], name="invoice_line_by_charge")]

    def __str__(self) -> str:
        return f"{self.description}: {self.amount} {self.currency}"


class InvoiceLineSource(models.Model):
    """
    What a line bills. "Has this been billed?" is answered here and nowhere else.

    A source is held by one line at a time; voiding the invoice releases it.
    """

    line = models.ForeignKey(InvoiceLine, on_delete=models.CASCADE, related_name="sources")
    fee_item = models.ForeignKey(FeeItem, null=True, blank=True, on_delete=models.PROTECT, related_name="billed_by")
    overage_charge = models.ForeignKey(
        OverageCharge, null=True, blank=True, on_delete=models.PROTECT, related_name="billed_by"
    )
    released_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(fee_item__isnull=False, overage_charge__isnull=True)
                | Q(fee_item__isnull=True, overage_charge__isnull=False),
                name="line_source_is_one_thing",
            ),
            models.UniqueConstraint(
                fields=["fee_item"], condition=Q(released_at__isnull=True), name="fee_item_billed_once"
            ),
            models.UniqueConstraint(
                fields=["overage_charge"], condition=Q(released_at__isnull=True), name="overage_charge_billed_once"
            ),
        ]

    def __str__(self) -> str:
        return f"line {self.line_id} ← {self.fee_item_id or self.overage_charge_id}"


class NumberSequence(models.Model):
    """The last number given out in a series: a row, not a sequence, because sequences leave gaps."""

    series = models.CharField(max_length=10, primary_key=True)
    last_number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.series} {self.last_number}"


class AuditRun(models.Model):
    """What one audit of the books has found. Append-only; the newest one is what the metrics show."""

    # By the database's clock, when it was done.
    recorded_at = models.DateTimeField(db_default=Now())
    milliseconds = models.PositiveIntegerField()
    # Rows that break an invariant, by its name; an invariant that holds is not listed.
    broken = models.JSONField(default=dict)
    # How many tenants it has parked that were not parked before.
    parked = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        rows = sum(self.broken.values())
        return f"{rows} rows break the books" if rows else "the books are right"


class ClockEntry(models.Model):
    """
    Something due that was run in a test clock's time, written in the transaction that did it. Append-only.

    Of one clock, what was run first has the lower id. Wall time keeps no such journal.
    """

    clock = models.ForeignKey(TestClock, on_delete=models.PROTECT, db_index=False, related_name="entries")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False, related_name="+")
    # Tenant time: where the clock stood.
    at = models.DateTimeField()
    # A kind of due work or "parked", and the name of the row that owed it: as the advance has answered.
    what = models.CharField(max_length=50)
    object = models.TextField()
    # That row: its model ("subscriptions.billingperiod") and its id, a number or a UUID.
    row_type = models.CharField(max_length=100)
    row_id = models.CharField(max_length=36)
    # By the database's clock.
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "clock entries"
        indexes = [models.Index(fields=["clock", "id"], name="clock_entry_by_clock")]

    def __str__(self) -> str:
        return f"{self.what} of {self.object}"


class TenantCreditEntry(models.Model):
    """A signed movement of the tenant's credit in one currency. Append-only; the balance is the sum."""

    class Kind(models.TextChoices):
        # The part of an invoice below zero.
        SURPLUS = "surplus"
        # Used by an invoice.
        APPLIED = "applied"
        # Both of the above taken back by voiding their invoice.
        RETURNED = "returned"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="credit_entries")
    currency = models.CharField(max_length=3)
    kind = models.CharField(max_length=10, choices=Kind)
    amount = MoneyField()
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="credit_entries")
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "tenant credit entries"
        constraints = [
            one_of("kind", ["surplus", "applied", "returned"], name="tenant_credit_kind"),
            representable("amount", name="tenant_credit_unit"),
        ]
        indexes = [models.Index(fields=["tenant", "currency"], name="tenant_credit_by_tenant")]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount} {self.currency}"


class BacktestRun(models.Model):
    """
    A backtest: what closed periods of a tier's tenants would have cost under a version.

    Nothing but its own rows is written for it. Where a draft is edited while it runs, it fails: its tenants would have been compared with
    different terms.
    """

    class Status(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="backtests")
    # The version's when it was asked for.
    revision = models.PositiveIntegerField()
    # The last so many closed periods of each tenant; None: those that lie in [from_at, to_at).
    periods = models.PositiveSmallIntegerField(null=True, blank=True)
    from_at = models.DateTimeField(null=True, blank=True)
    to_at = models.DateTimeField(null=True, blank=True)
    # Who is compared of those who have such periods: {"tenants": [their codes]}; {"metadata": what stands with them}; {}: all. Those named live in
    # whatever time they do; of the others, those in the time of `test_clock`; None: in wall time.
    cohort = models.JSONField(default=dict)
    test_clock = models.ForeignKey(TestClock, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    status = models.CharField(max_length=10, choices=Status, default=Status.RUNNING)
    # Who asked for it, as in the audit.
    actor = models.CharField(max_length=200)
    # How many tenants there were when it was asked for, and how many are done.
    tenants = models.PositiveIntegerField()
    tenants_done = models.PositiveIntegerField(default=0)
    # Once it is done: see `selectors.backtests.summary_of`.
    summary = models.JSONField(default=dict)
    # By the database's clock.
    finished_at = models.DateTimeField(null=True, blank=True)
    # Why it failed, as a sentence.
    failure = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            one_of("status", ["running", "done", "failed", "cancelled"], name="backtest_run_status"),
            models.CheckConstraint(
                condition=Q(status="running", finished_at__isnull=True)
                | (~Q(status="running") & Q(finished_at__isnull=False)),
                name="backtest_run_finished_unless_running",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version}, {self.status}"


class BacktestChunk(Due):
    """Some tenants of a running backtest, for one worker at a time. Due: to compare them; then, and when the run is over, it is gone."""

    run = models.ForeignKey(BacktestRun, on_delete=models.CASCADE, related_name="chunks")
    tenant_ids = ArrayField(models.BigIntegerField())

    class Meta:
        indexes = [due_index("backtest_chunk_due_index")]

    def __str__(self) -> str:
        return f"{len(self.tenant_ids)} tenants"


class BacktestResult(models.Model):
    """What a tenant's periods were billed, and would have been, in the version's currency. Written once."""

    run = models.ForeignKey(BacktestRun, on_delete=models.CASCADE, db_index=False, related_name="results")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False, related_name="+")
    before = MoneyField()
    after = MoneyField()
    # after − before.
    difference = MoneyField()
    # How many periods were compared; those that could not be are in `skipped`.
    periods = models.PositiveSmallIntegerField()
    # The lines that changed: [{"period": {"starts_at", "ends_at"}, "kind", "meter", "dimensions", "before", "after"}], amounts as texts.
    lines = models.JSONField(default=list)
    # [{"period", "reason", "detail"}]
    skipped = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "tenant"], name="backtest_result_once"),
            models.CheckConstraint(condition=Q(difference=F("after") - F("before")), name="backtest_result_difference"),
        ]
        indexes = [models.Index(fields=["run", "difference"], name="backtest_result_by_difference")]

    def __str__(self) -> str:
        return f"{self.before} → {self.after}"
