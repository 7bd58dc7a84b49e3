"""What staff see and do with these rows."""
