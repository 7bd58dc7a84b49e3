"""Guards of tiers, verdicts of backtests, approvals by a second person; who saved a version last, and why it was published."""

import django.db.models.deletion
from django.db import migrations, models

import billing_site.database
import subscriptions.models.guards
from billing_site.database import AppendOnly, GuardTrigger

VERSION_FINAL = GuardTrigger(
    "tierversion_published",
    "subscriptions_tierversion",
    message="A published version never changes; make a new version.",
    when="OLD.published_at IS NOT NULL",
    truncate=True,
)
# The audit has known all along who saved what; versions that are published get it, too.
SAVED_BY = """
    UPDATE subscriptions_tierversion v SET saved_by = e.actor
    FROM subscriptions_tier t, (
        SELECT DISTINCT ON (object_id) object_id, actor FROM subscriptions_auditentry
        WHERE object_type = 'subscriptions.tierversion' AND action IN ('draft', 'save_draft') ORDER BY object_id, id DESC
    ) e
    WHERE t.id = v.tier_id AND e.object_id = t.code || '/' || v.number
"""
_PROGRESS_ONLY = "NEW.version_id <> OLD.version_id OR NEW.cohort <> OLD.cohort OR NEW.effective_at <> OLD.effective_at"
_UNDONE_ONCE = "(OLD.undone_at IS NOT NULL AND NEW.undone_at IS DISTINCT FROM OLD.undone_at)"
_MESSAGE = "A publication says what was published; only its progress is written, and once that it was undone."


def publication_kept(when):
    return GuardTrigger("publication_kept", "subscriptions_publication", message=_MESSAGE, events="UPDATE", when=when)


KEPT_BEFORE = publication_kept(f"{_PROGRESS_ONLY} OR {_UNDONE_ONCE}")
KEPT = publication_kept(
    f"{_PROGRESS_ONLY} OR NEW.published_by <> OLD.published_by OR NEW.reason <> OLD.reason OR {_UNDONE_ONCE}"
)


class Migration(migrations.Migration):
    dependencies = [("subscriptions", "0008_lives")]

    operations = [
        migrations.AddField(
            model_name="tierversion",
            name="saved_by",
            field=models.CharField(blank=True, default="", max_length=200),
        ),
        migrations.RunSQL(
            sql=[*VERSION_FINAL.dropped, SAVED_BY, *VERSION_FINAL.created], reverse_sql=migrations.RunSQL.noop
        ),
        migrations.RunSQL(sql=KEPT_BEFORE.dropped, reverse_sql=KEPT_BEFORE.created),
        migrations.AddField(
            model_name="publication",
            name="reason",
            field=models.TextField(blank=True, default=""),
        ),
        KEPT,
        migrations.CreateModel(
            name="PriceGuard",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "rise_percent_max",
                    subscriptions.models.guards.PercentField(blank=True, decimal_places=2, max_digits=9, null=True),
                ),
                (
                    "revenue_fall_percent_max",
                    subscriptions.models.guards.PercentField(blank=True, decimal_places=2, max_digits=9, null=True),
                ),
                (
                    "tier",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, related_name="guard", to="subscriptions.tier"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("revenue_fall_percent_max__gte", 0),
                            ("revenue_fall_percent_max__lte", 100),
                            ("rise_percent_max__gte", 0),
                        ),
                        name="price_guard_percentages",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="BacktestVerdict",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("revision", models.PositiveIntegerField()),
                (
                    "largest_rise_percent",
                    billing_site.database.UnboundedDecimalField(
                        blank=True, null=True
                    ),
                ),
                ("rises_from_nothing", models.BooleanField(default=False)),
                (
                    "revenue_change_percent",
                    billing_site.database.UnboundedDecimalField(
                        blank=True, null=True
                    ),
                ),
                ("source", models.CharField(max_length=200)),
                ("found_at", models.DateTimeField()),
                (
                    "version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="verdicts",
                        to="subscriptions.tierversion",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("version", "revision", "source"), name="backtest_verdict_once"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Approval",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("revision", models.PositiveIntegerField()),
                ("approved_by", models.CharField(max_length=200)),
                ("approved_at", models.DateTimeField()),
                ("note", models.TextField(blank=True, default="")),
                (
                    "version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="approvals",
                        to="subscriptions.tierversion",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["version", "revision"], name="approval_by_version")],
            },
        ),
        AppendOnly("subscriptions_backtestverdict"),
        AppendOnly("subscriptions_approval"),
    ]
