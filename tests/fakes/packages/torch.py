"""Is there, which is all that is asked of it."""
