"""HTTP doors: one module per resource, serializers and views together."""
