"""Staff pages of what is owed: subscriptions and periods, invoices and credit; and test clocks, whose advance runs all that is due."""

from invoices.admin import audits, changes, clocks, invoices, subscriptions

__all__ = ["audits", "changes", "clocks", "invoices", "subscriptions"]
