"""The addresses of this app's resources, below /api/v1/."""

from django.urls import URLPattern, URLResolver, path, re_path

from invoices.api.backtests import BacktestCancellation, BacktestDetail, Backtests, BacktestTable
from invoices.api.changes import Change, Changes, ChangeStatement
from invoices.api.clocks import TestClockAdvance, TestClockDetail, TestClocks
from invoices.api.events import EventExplanation
from invoices.api.invoices import (
    Finalization,
    InvoiceDetail,
    Invoices,
    LineEvents,
    UpcomingInvoice,
    Verification,
    Voiding,
)
from invoices.api.lifecycle import AnchorMove, Cancellation, Pause, Reactivation, Resumption, Undoing
from invoices.api.quotes import Quotes
from invoices.api.subscriptions import SubscriptionDetail, Subscriptions
from invoices.api.trials import TrialEnd

# Only what may be an id of the operator's reaches a view; anything else is no address.
_CODE = r"[A-Za-z0-9._:@-]{1,100}"

urlpatterns: list[URLPattern | URLResolver] = [
    path("invoices", Invoices.as_view(), name="invoices"),
    path("invoices/<uuid:invoice>", InvoiceDetail.as_view(), name="invoice"),
    path("invoices/<uuid:invoice>/lines/<int:number>/events", LineEvents.as_view(), name="line-events"),
    path("invoices/<uuid:invoice>/finalize", Finalization.as_view(), name="invoice-finalize"),
    path("invoices/<uuid:invoice>/void", Voiding.as_view(), name="invoice-void"),
    path("invoices/<uuid:invoice>/verify", Verification.as_view(), name="invoice-verify"),
    re_path(rf"^tenants/(?P<tenant>{_CODE})/upcoming-invoice\Z", UpcomingInvoice.as_view(), name="upcoming-invoice"),
    path("subscriptions", Subscriptions.as_view(), name="subscriptions"),
    path("subscriptions/<uuid:subscription>", SubscriptionDetail.as_view(), name="subscription"),
    path("subscriptions/<uuid:subscription>/cancel", Cancellation.as_view(), name="subscription-cancel"),
    path("subscriptions/<uuid:subscription>/change", Change.as_view(), name="subscription-change"),
    path("subscriptions/<uuid:subscription>/changes", Changes.as_view(), name="subscription-changes"),
    path(
        "subscriptions/<uuid:subscription>/changes/<uuid:change>",
        ChangeStatement.as_view(),
        name="subscription-statement",
    ),
    path("subscriptions/<uuid:subscription>/trial", TrialEnd.as_view(), name="subscription-trial"),
    path("subscriptions/<uuid:subscription>/pause", Pause.as_view(), name="subscription-pause"),
    path("subscriptions/<uuid:subscription>/resume", Resumption.as_view(), name="subscription-resume"),
    path("subscriptions/<uuid:subscription>/reactivate", Reactivation.as_view(), name="subscription-reactivate"),
    path("subscriptions/<uuid:subscription>/anchor", AnchorMove.as_view(), name="subscription-anchor"),
    path("subscriptions/<uuid:subscription>/undo", Undoing.as_view(), name="subscription-undo"),
    path("quotes", Quotes.as_view(), name="quotes"),
    path("backtests", Backtests.as_view(), name="backtests"),
    path("backtests/<uuid:backtest>", BacktestDetail.as_view(), name="backtest"),
    path("backtests/<uuid:backtest>/cancel", BacktestCancellation.as_view(), name="backtest-cancel"),
    path("backtests/<uuid:backtest>/tenants.csv", BacktestTable.as_view(), name="backtest-table"),
    path("events/<uuid:event>", EventExplanation.as_view(), name="event"),
    path("test-clocks", TestClocks.as_view(), name="test-clocks"),
    re_path(rf"^test-clocks/(?P<clock>{_CODE})\Z", TestClockDetail.as_view(), name="test-clock"),
    re_path(rf"^test-clocks/(?P<clock>{_CODE})/advance\Z", TestClockAdvance.as_view(), name="test-clock-advance"),
]
