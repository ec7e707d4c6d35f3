"""Links that are mailed, work once, and prove who has an address."""
