"""Pages that show all three apps at once."""
