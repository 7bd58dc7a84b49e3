"""Drafting, finalising and voiding: numbers without gaps, credit used once, and content that never changes again."""

from decimal import Decimal
from uuid import UUID

import pytest
from django.db import DatabaseError, transaction

from invoices.models import Invoice, InvoiceLine, InvoiceLineSource, NumberSequence, TenantCreditEntry
from invoices.selectors.invoices import InvoiceNotFound, credit_balance, get_invoice
from invoices.services import invoicing
from invoices.services.advancing import advance
from invoices.services.invoicing import InvoiceNotDraft, InvoiceNotOpen, NothingToBill
from invoices.services.subscribing import cancel_subscription, start_subscription
from subscriptions.models import AuditEntry, OutboxMessage
from subscriptions.selectors.clock import wall_now
from subscriptions.services import outbox, tenants
from tests.races import together
from tests.world import ACTOR, JUNE, at, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def tokens(transactional_db):
    """Make the meter that every version here charges."""
    return make_meter()


def invoices(world):
    return list(Invoice.objects.filter(tenant=world.tenant).order_by("pk"))


def void(world, invoice):
    return invoicing.void(invoice_id=invoice.pk, now=world.now, actor=ACTOR, reason="test")


def manual_draft(world):
    """Void the opening invoice, so that its fee is unbilled, and draft it anew."""
    void(world, invoices(world)[0])
    return invoicing.draft_unbilled(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR)


def world_with_credit():
    """A tenant whose cancelled subscription left $46.20, and who has subscribed again since."""
    world = make_world(now=at("2026-06-16 00:00"))
    cancel_subscription(subscription_id=world.subscription.pk, when="now", credit="unused", now=world.now, actor=ACTOR)
    advance(clock_id=world.clock.pk, to=at("2026-06-16 02:00"), actor=ACTOR)
    return world


def subscribe_again(world):
    return start_subscription(
        tenant=world.tenant,
        version=world.subscription.version,
        starts_at=world.now,
        anchor_at=world.now,
        now=world.now,
        actor=ACTOR,
    )


class TestDrafts:
    def test_a_draft_has_no_number_and_holds_what_it_bills(self):
        world = make_world()
        draft = manual_draft(world)
        assert (draft.reason, draft.status, draft.number, draft.total) == ("manual", "draft", None, 99)
        with pytest.raises(NothingToBill):
            invoicing.draft_unbilled(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR)

    def test_a_draft_is_not_billed_again_by_the_closing(self):
        world = make_world()
        manual_draft(world)
        advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00"), actor=ACTOR)
        assert [invoice.total for invoice in invoices(world)[1:]] == [99, 99]  # June's, a draft still, and July's

    def test_a_deleted_draft_frees_what_it_held(self):
        world = make_world()
        manual_draft(world).delete()
        again = invoicing.draft_unbilled(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR)
        assert again.total == 99

    def test_there_is_nothing_to_draft_before_the_first_period(self):
        world = make_world(starts_at=at("2026-07-01 00:00"), now=JUNE)
        with pytest.raises(NothingToBill):
            invoicing.draft_unbilled(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR)


class TestFinalising:
    def test_a_final_invoice_has_its_number_its_addressee_and_is_announced(self):
        world = make_world(email="billing@example.com", country="DE", tax_ids=[{"type": "eu_vat", "value": "DE1"}])
        draft = manual_draft(world)
        OutboxMessage.objects.all().delete()
        invoice = invoicing.finalize(invoice_id=draft.pk, now=world.now, actor="staff:ada")
        assert (invoice.printed_number, invoice.status, invoice.finalized_at) == ("TEST-000002", "open", world.now)
        assert invoice.billed_to == {
            "name": "Org",
            "email": "billing@example.com",
            "country": "DE",
            "tax_ids": [{"type": "eu_vat", "value": "DE1"}],
        }
        [message] = OutboxMessage.objects.all()
        assert (message.type, message.payload["number"], message.payload["amount_due"]) == (
            "invoice.finalized",
            "TEST-000002",
            "99.00",
        )
        entry = AuditEntry.objects.filter(action="finalize").latest("pk")
        assert (entry.actor, entry.object_id) == ("staff:ada", str(invoice.public_id))

    def test_finalising_twice_is_refused_and_takes_no_number(self):
        world = make_world()
        [opening] = invoices(world)
        with pytest.raises(InvoiceNotDraft):
            invoicing.finalize(invoice_id=opening.pk, now=world.now, actor=ACTOR)
        assert NumberSequence.objects.get().last_number == 1

    def test_of_two_at_once_one_finalises(self):
        world = make_world()
        draft = manual_draft(world)
        now = world.now
        results = together(*[lambda: invoicing.finalize(invoice_id=draft.pk, now=now, actor=ACTOR)] * 2)
        assert sorted(type(result).__name__ for result in results) == ["Invoice", "InvoiceNotDraft"]
        assert NumberSequence.objects.get().last_number == 2

    def test_a_finalisation_that_fails_gives_its_number_back(self, monkeypatch):
        world = make_world()
        draft = manual_draft(world)

        def break_down(**_):
            raise RuntimeError("the power fails")

        with monkeypatch.context() as patch:
            patch.setattr(outbox, "write_all", break_down)
            with pytest.raises(RuntimeError):
                invoicing.finalize(invoice_id=draft.pk, now=world.now, actor=ACTOR)
        assert Invoice.objects.get(pk=draft.pk).status == "draft"
        assert invoicing.finalize(invoice_id=draft.pk, now=world.now, actor=ACTOR).number == 2

    def test_many_tenants_at_once_leave_no_gap(self):
        drafts = [manual_draft(make_world()) for _ in range(6)]
        together(*[lambda pk=draft.pk: invoicing.finalize(invoice_id=pk, now=JUNE, actor=ACTOR) for draft in drafts])
        assert sorted(Invoice.objects.values_list("number", flat=True)) == list(range(1, 13))

    def test_a_tenant_in_wall_time_has_a_series_of_its_own(self):
        make_world()
        tenant = tenants.create_tenant(code="real", name="Real", actor=ACTOR)
        now = wall_now()
        start_subscription(tenant=tenant, version=publish(), starts_at=now, anchor_at=now, now=now, actor=ACTOR)
        assert Invoice.objects.get(tenant=tenant).printed_number == "INV-000001"

    def test_an_unknown_invoice_is_named_as_such(self):
        for refused in (
            lambda: invoicing.finalize(invoice_id=0, now=JUNE, actor=ACTOR),
            lambda: invoicing.void(invoice_id=0, now=JUNE, actor=ACTOR, reason=""),
            lambda: get_invoice(UUID(int=0)),
        ):
            with pytest.raises(InvoiceNotFound):
                refused()


class TestCredit:
    def test_an_invoice_below_zero_leaves_credit_that_the_next_one_uses(self):
        world = world_with_credit()
        assert credit_balance(tenant_id=world.tenant.pk, currency="USD") == Decimal("46.20")
        subscribe_again(world)
        opening = invoices(world)[-1]
        assert (opening.total, opening.credit_applied, opening.amount_due) == (99, Decimal("46.20"), Decimal("52.80"))
        assert credit_balance(tenant_id=world.tenant.pk, currency="USD") == 0

    def test_voiding_returns_the_credit_that_was_used(self):
        world = world_with_credit()
        subscribe_again(world)
        void(world, invoices(world)[-1])
        assert [(entry.kind, entry.amount) for entry in TenantCreditEntry.objects.order_by("pk")] == [
            ("surplus", Decimal("46.20")),
            ("applied", Decimal("-46.20")),
            ("returned", Decimal("46.20")),
        ]

    def test_an_invoice_covered_by_credit_is_paid_and_cannot_be_voided(self):
        world = world_with_credit()
        cheap = publish("cheap", fee="20.00")
        start_subscription(
            tenant=world.tenant, version=cheap, starts_at=world.now, anchor_at=world.now, now=world.now, actor=ACTOR
        )
        paid = invoices(world)[-1]
        assert (paid.status, paid.credit_applied, paid.amount_due) == ("paid", 20, 0)
        with pytest.raises(InvoiceNotOpen):
            void(world, paid)

    def test_two_invoices_at_once_never_use_the_same_credit(self):
        world = world_with_credit()
        again = subscribe_again(world)
        now = world.now
        old_opening, _, new_opening = invoices(world)
        void(world, old_opening)
        void(world, new_opening)
        drafts = [
            invoicing.draft_unbilled(subscription_id=pk, now=now, actor=ACTOR)
            for pk in (world.subscription.pk, again.pk)
        ]
        results = together(
            *[lambda pk=draft.pk: invoicing.finalize(invoice_id=pk, now=now, actor=ACTOR) for draft in drafts]
        )
        assert sum(invoice.credit_applied for invoice in results) == Decimal("46.20")
        assert credit_balance(tenant_id=world.tenant.pk, currency="USD") == 0


class TestVoiding:
    def test_the_number_stays_and_what_was_billed_is_free(self):
        world = make_world()
        [opening] = invoices(world)
        voided = invoicing.void(invoice_id=opening.pk, now=world.now, actor="staff:ada", reason="wrong address")
        assert (voided.status, voided.printed_number, voided.voided_at) == ("void", "TEST-000001", world.now)
        assert InvoiceLineSource.objects.get(line__invoice=opening).released_at == world.now
        entry = AuditEntry.objects.get(action="void")
        assert (entry.actor, entry.reason) == ("staff:ada", "wrong address")
        assert OutboxMessage.objects.latest("pk").type == "invoice.voided"

    def test_what_was_voided_stands_on_the_next_invoice_and_on_no_second_opening(self):
        world = make_world()
        void(world, invoices(world)[0])
        advance(clock_id=world.clock.pk, to=at("2026-06-20 00:00"), actor=ACTOR)
        assert len(invoices(world)) == 1
        advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00"), actor=ACTOR)
        assert [(one.reason, one.total) for one in invoices(world)] == [("opening", 99), ("period", 198)]

    def test_a_draft_and_a_void_invoice_are_refused(self):
        world = make_world()
        draft = manual_draft(world)
        for invoice in invoices(world):
            with pytest.raises(InvoiceNotOpen):
                void(world, invoice)
        assert draft.status == "draft"

    def test_of_two_at_once_one_voids(self):
        world = make_world()
        [opening] = invoices(world)
        now = world.now
        results = together(*[lambda: invoicing.void(invoice_id=opening.pk, now=now, actor=ACTOR, reason="")] * 2)
        assert sorted(type(result).__name__ for result in results) == ["Invoice", "InvoiceNotOpen"]

    def test_a_charge_voided_and_billed_again_in_parts_sums_to_its_rounded_total(self):
        world = make_world(now=at("2026-06-20 00:00"))
        world.use(10_023, time=at("2026-06-05 00:00"))
        advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00"), actor=ACTOR)
        world.use(24, time=at("2026-06-06 00:00"))
        advance(clock_id=world.clock.pk, to=at("2026-08-01 02:00"), actor=ACTOR)
        void(world, invoices(world)[1])
        advance(clock_id=world.clock.pk, to=at("2026-09-01 02:00"), actor=ACTOR)
        lines = InvoiceLine.objects.filter(kind="overage").exclude(invoice__status="void").order_by("pk")
        # 23 units are 0.0046, 47 are 0.0094: the second line brought the total to 0.01, and the third adds nothing.
        assert [(line.quantity, line.amount) for line in lines] == [(24, Decimal("0.01")), (23, 0)]


class TestTheDatabaseRefuses:
    @pytest.mark.parametrize(
        "change", [{"total": 1}, {"amount_due": 1}, {"billed_to": {}}, {"number": 7}, {"status": "draft"}]
    )
    def test_a_change_of_a_final_invoice(self, change):
        world = make_world()
        with pytest.raises(DatabaseError), transaction.atomic():
            Invoice.objects.filter(tenant=world.tenant).update(**change)

    def test_a_change_of_its_lines_or_their_removal(self):
        make_world()
        lines = InvoiceLine.objects.all()
        for change in (lambda: lines.update(amount=1), lines.delete, lambda: Invoice.objects.all().delete()):
            with pytest.raises(DatabaseError), transaction.atomic():
                change()

    def test_a_number_that_skips_or_comes_back(self):
        make_world()
        for number in (0, 3):
            with pytest.raises(DatabaseError), transaction.atomic():
                NumberSequence.objects.update(last_number=number)
