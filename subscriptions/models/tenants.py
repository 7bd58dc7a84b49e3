"""Who pays, whose keys may speak, and whose time it is."""

from django.db import models

from billing_site.database import uuid7
from subscriptions.models.fields import CodeField, MoneyField, is_code, representable


class TestClock(models.Model):
    """A clock that only moves when told to; its tenants live in its time."""

    __test__ = False  # not a test class, whatever its name says

    class Status(models.TextChoices):
        READY = "ready"
        # Everything up to `advancing_to` is being run; events of its tenants are rejected meanwhile.
        ADVANCING = "advancing"

    code = CodeField(unique=True)
    # The time its tenants live in. Moves forward only, item by item while the clock advances.
    now = models.DateTimeField()
    status = models.CharField(max_length=10, choices=Status, default=Status.READY)
    # The goal of a running advance; kept, so that an advance that was cut off can be resumed.
    advancing_to = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            is_code("code", name="test_clock_code"),
            models.CheckConstraint(
                condition=models.Q(status="ready", advancing_to__isnull=True)
                | models.Q(status="advancing", advancing_to__isnull=False),
                name="test_clock_goal_while_advancing",
            ),
        ]

    def __str__(self) -> str:
        return self.code


class Tenant(models.Model):
    """The paying customer of the operator."""

    # The operator's own id of this customer; the `subject` of its events and its id in the API.
    code = CodeField(unique=True)
    name = models.CharField(max_length=200)
    email = models.EmailField(blank=True, default="")
    # ISO 4217. Fixed once the tenant has subscribed: amounts of two currencies never meet.
    currency = models.CharField(max_length=3, default="USD")
    # IANA zone in which its days, months and years are counted.
    timezone = models.CharField(max_length=64, default="UTC")
    # The most that the overage of a period may cost, over all meters, in its currency; null is no cap. The gate keeps it.
    spend_cap = MoneyField(null=True, blank=True)
    country = models.CharField(max_length=2, blank=True, default="")
    tax_ids = models.JSONField(default=list, blank=True)
    # The operator's own notes; nothing reads them but a backtest that chooses tenants by them.
    metadata = models.JSONField(default=dict, blank=True)
    # A tenant on a test clock takes numbers of the TEST- series and appears in no revenue figure.
    test_clock = models.ForeignKey(TestClock, null=True, blank=True, on_delete=models.PROTECT, related_name="tenants")
    # Wall time; set by the audit when the tenant's books do not balance. Until staff release it nothing of it is booked, closed or
    # charged; its usage is recorded all the same.
    parked_at = models.DateTimeField(null=True, blank=True, editable=False)
    parked_reason = models.TextField(blank=True, db_default="", editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        permissions = [("release_tenant", "Can release a parked tenant")]
        constraints = [
            is_code("code", name="tenant_code"),
            models.CheckConstraint(condition=models.Q(currency__regex="^[A-Z]{3}$"), name="tenant_currency"),
            models.CheckConstraint(condition=models.Q(spend_cap__gte=0), name="tenant_spend_cap"),
            representable("spend_cap", name="tenant_spend_cap_unit"),
        ]
        indexes = [
            models.Index(fields=["parked_at"], name="tenant_parked", condition=models.Q(parked_at__isnull=False))
        ]

    def __str__(self) -> str:
        return self.code


class ApiKey(models.Model):
    """A key of the operator's gateway or back office. Only its digest is stored; the key itself is shown once."""

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    name = models.CharField(max_length=100)
    # The part before the secret, by which staff recognise a key and the door finds its row.
    prefix = models.CharField(max_length=20, unique=True)
    # SHA-256 of the whole key; 256 random bits need no slow hash.
    digest = models.BinaryField(max_length=32)
    scopes = models.JSONField(default=list)
    # Wall time, as all of a key's times are: a test clock neither revives nor expires a key.
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Scope(models.TextChoices):
        INGEST = "ingest"
        GATE = "gate"
        READ = "read"
        MANAGE = "manage"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
