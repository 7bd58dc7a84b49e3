"""
The baseline: ingestion as a competent team would first write it, with DRF's serializers, the ORM and a locked balance per event.

It does the least of the same job: reads the event with a ModelSerializer as DRF makes it, finds its tenant and meter, stores it once, counts it
against what is included, and answers where the tenant stands. No ledger, no periods, no prices, no late events. Its tables are made by the
benchmark, never by the product's migrations.
"""
