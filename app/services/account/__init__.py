"""The end of an account, and what comes before it.

`accounts` archives, deletes and restores; `erasure` leaves nothing of what was deleted;
`export` gives people all that they own; `holdings` knows every table, and whose its
rows are; `sealing` takes a user's row out of `users` and puts it back.
"""
