"""Rows, constraints and conversions to core values."""
