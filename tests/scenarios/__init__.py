"""Stories over months, through the public API."""
