"""
The pricing studio: where product staff make prices, see what they do to customers, and publish them.

Pages in the admin's frame, each a module with its views and its `paths`. They own no rule: what is valid, found, priced and allowed is said by
the apps' services and selectors, the same that the API asks.
"""
