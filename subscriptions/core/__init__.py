"""Only computes: the standard library and the core of the same or a lower app. No Django, no clock, no randomness."""
