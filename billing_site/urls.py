"""The only URL table."""
