"""Which model answers, and the call to it."""
