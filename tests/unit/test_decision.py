"""What the gate answers, and which limit it names."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from metering.core.decision import (
    AtLimit,
    Decision,
    GatePolicy,
    GateState,
    Limit,
    LimitKind,
    Outcome,
    Reason,
    decide,
)

JULY = datetime(2026, 7, 1, tzinfo=UTC)
DENY, DEGRADE, ALLOW = GatePolicy(AtLimit.DENY), GatePolicy(AtLimit.DEGRADE), GatePolicy()
CAPPED = GatePolicy(AtLimit.ALLOW, Decimal(50))


def state(*, covered=0, overage=0, held=0, remaining=0):
    return GateState(
        used=Decimal(covered + overage),
        covered=Decimal(covered),
        held=Decimal(held),
        remaining_in_force=Decimal(remaining),
        overage=Decimal(overage),
        period_ends_at=JULY,
    )


def allowance_limit(limit, left):
    return (LimitKind.ALLOWANCE, Decimal(limit), Decimal(left), JULY)


def overage_limit(left):
    return (LimitKind.OVERAGE_QUANTITY_MAX, Decimal(50), Decimal(left), JULY)


def shown(decision):
    """Return a decision with its limit as (kind, limit, left, when it frees up)."""
    limit = decision.binding_limit
    return replace(decision, binding_limit=limit and (limit.kind, limit.limit, limit.left, limit.frees_at))


def answer(outcome, reason, *, remaining=0, overage=0, limit=None, frees_at=None):
    return Decision(outcome, reason, Decimal(remaining), Decimal(overage), limit, frees_at)


@pytest.mark.parametrize("policy", [ALLOW, DEGRADE])
def test_a_call_that_the_grants_cover_is_allowed(policy):
    decision = decide(state(covered=900, held=30, remaining=100), policy, Decimal(70))
    assert shown(decision) == answer(Outcome.ALLOW, Reason.WITHIN_ALLOWANCE)


def test_a_call_beyond_the_grants_is_billed_as_overage_for_that_part():
    decision = decide(state(covered=900, held=30, remaining=100), ALLOW, Decimal(100))
    assert shown(decision) == answer(Outcome.ALLOW_OVERAGE, Reason.OVERAGE_BILLED, overage=30)


def test_earlier_overage_is_not_this_calls():
    decision = decide(state(covered=900, overage=500, held=200, remaining=100), ALLOW, Decimal(10))
    assert shown(decision) == answer(Outcome.ALLOW_OVERAGE, Reason.OVERAGE_BILLED, overage=10)
    # A new grant covers new usage, whatever was billed before it.
    decision = decide(state(covered=900, overage=500, remaining=100), ALLOW, Decimal(10))
    assert shown(decision) == answer(Outcome.ALLOW, Reason.WITHIN_ALLOWANCE, remaining=90)


def test_deny_grants_up_to_the_limit_and_nothing_beyond():
    at_99 = state(covered=900, held=99, remaining=100)
    assert shown(decide(at_99, DENY, Decimal(1))) == answer(
        Outcome.ALLOW, Reason.WITHIN_ALLOWANCE, limit=allowance_limit(1000, 1)
    )
    assert shown(decide(at_99, DENY, Decimal("1.000000000001"))) == answer(
        Outcome.DENY,
        Reason.LIMIT_REACHED,
        remaining=1,
        overage="0.000000000001",
        limit=allowance_limit(1000, 1),
        frees_at=JULY,
    )


def test_after_recorded_usage_exceeded_the_limit_all_is_denied_until_there_is_room():
    denied = answer(Outcome.DENY, Reason.LIMIT_REACHED, limit=allowance_limit(1000, 0), overage=1, frees_at=JULY)
    assert shown(decide(state(covered=1000, overage=40), DENY, Decimal(1))) == denied
    with_a_grant_of_60 = state(covered=1000, overage=40, remaining=60)
    assert decide(with_a_grant_of_60, DENY, Decimal(20)).decision == Outcome.ALLOW
    assert decide(with_a_grant_of_60, DENY, Decimal(21)).decision == Outcome.DENY
    assert shown(decide(with_a_grant_of_60, DENY, Decimal(21))).binding_limit == allowance_limit(1060, 20)


def test_degrade_allows_and_says_so():
    decision = decide(state(covered=900, remaining=100), DEGRADE, Decimal(130))
    assert shown(decision) == answer(
        Outcome.DEGRADE, Reason.LIMIT_REACHED, overage=30, limit=allowance_limit(1000, 100), frees_at=JULY
    )


def test_overage_may_be_bounded():
    nearly = state(covered=1000, overage=20, held=25)
    assert shown(decide(nearly, CAPPED, Decimal(5))) == answer(
        Outcome.ALLOW_OVERAGE, Reason.OVERAGE_BILLED, overage=5, limit=overage_limit(5)
    )
    assert shown(decide(nearly, CAPPED, Decimal(6))) == answer(
        Outcome.DENY, Reason.OVERAGE_QUANTITY_MAX, overage=6, limit=overage_limit(5), frees_at=JULY
    )


def test_degraded_calls_are_bounded_too():
    policy = GatePolicy(AtLimit.DEGRADE, Decimal(50))
    assert decide(state(covered=1000, overage=49), policy, Decimal(1)).decision == Outcome.DEGRADE
    assert decide(state(covered=1000, overage=50), policy, Decimal(1)).reason == Reason.OVERAGE_QUANTITY_MAX


def test_the_allowance_binds_before_the_bound_on_overage():
    policy = GatePolicy(AtLimit.DENY, Decimal(50))
    assert decide(state(covered=1000), policy, Decimal(1)).reason == Reason.LIMIT_REACHED


def test_no_overage_at_all_is_a_bound_like_any_other():
    policy = GatePolicy(AtLimit.ALLOW, Decimal(0))
    assert decide(state(covered=900, remaining=100), policy, Decimal(100)).decision == Outcome.ALLOW
    assert decide(state(covered=900, remaining=100), policy, Decimal(101)).reason == Reason.OVERAGE_QUANTITY_MAX


def test_holds_beyond_the_grants_count_as_overage_to_come():
    decision = decide(state(covered=900, held=130, remaining=100), CAPPED, Decimal(20))
    assert shown(decision) == answer(Outcome.ALLOW_OVERAGE, Reason.OVERAGE_BILLED, overage=20, limit=overage_limit(20))
    assert decide(state(covered=900, held=130, remaining=100), CAPPED, Decimal(21)).decision == Outcome.DENY


def test_a_call_of_nothing_asks_whether_there_is_room():
    assert decide(state(covered=900, held=100, remaining=100), DENY, Decimal(0)).decision == Outcome.ALLOW
    assert decide(state(covered=900, held=101, remaining=100), DENY, Decimal(0)).decision == Outcome.DENY


def test_the_decision_is_exact_at_thirty_digits():
    full = GateState(
        used=Decimal("999999999999999999.999999999998"),
        covered=Decimal("999999999999999999.999999999998"),
        held=Decimal(0),
        remaining_in_force=Decimal("0.000000000001"),
        overage=Decimal(0),
    )
    assert decide(full, DENY, Decimal("0.000000000001")).decision == Outcome.ALLOW
    assert decide(full, DENY, Decimal("0.000000000002")).decision == Outcome.DENY


def test_a_negative_quantity_is_refused():
    with pytest.raises(ValueError, match="negative"):
        decide(state(), ALLOW, Decimal(-1))


def window(limit, taken, asked, *, frees_at=None):
    return Limit(LimitKind.WINDOW, Decimal(limit), Decimal(taken), Decimal(asked), frees_at, "PT5H")


def cap(limit, taken, asked):
    return Limit(LimitKind.SPEND_CAP, Decimal(limit), Decimal(taken), Decimal(asked), JULY)


def test_every_limit_must_have_room():
    fits, full = window(100, 90, 10), window(100, 91, 10, frees_at=JULY)
    assert decide(state(remaining=10), ALLOW, Decimal(10), further=[fits]).decision == Outcome.ALLOW
    denied = decide(state(remaining=10), ALLOW, Decimal(10), further=[fits, full])
    assert (denied.decision, denied.reason, denied.binding_limit, denied.frees_at) == (
        Outcome.DENY,
        Reason.WINDOW,
        full,
        JULY,
    )


def test_the_tightest_limit_is_named_whatever_its_unit():
    # 30 of 100 tokens would fit the window, and a tenth of the call the cap.
    tokens, money = window(100, 70, 100), cap(5, "4.9", 1)
    assert decide(state(), ALLOW, Decimal(100), further=[tokens, money]).binding_limit == money
    # Of limits that leave room, the one that leaves least of it.
    tokens, money = window(1000, 700, 100), cap(5, 0, 1)
    assert decide(state(), ALLOW, Decimal(100), further=[money, tokens]).binding_limit == tokens


def test_a_limit_that_is_exceeded_is_named_before_one_that_is_only_tight():
    exceeded, tight = window(100, 0, 101), cap(5, 4, 1)
    assert decide(state(), ALLOW, Decimal(101), further=[tight, exceeded]).binding_limit == exceeded


def test_a_call_that_costs_nothing_is_denied_once_the_cap_is_exceeded():
    assert decide(state(remaining=10), ALLOW, Decimal(1), further=[cap(5, 5, 0)]).decision == Outcome.ALLOW
    assert decide(state(remaining=10), ALLOW, Decimal(1), further=[cap(5, "5.01", 0)]).reason == Reason.SPEND_CAP
