"""Staff pages of the agreement's base: tenants and keys, the catalogue, records, and the staff itself."""

from subscriptions.admin import catalogue, meters, publications, records, staff, tenants

__all__ = ["catalogue", "meters", "publications", "records", "staff", "tenants"]
