"""Files that users upload: stored, looked into, read, deleted."""
