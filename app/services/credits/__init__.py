"""Money: what users may spend, what they spent, and who says so.

`leasing` is what calls of models use: it reserves and settles in memory, for a `purse`
of each user that is filled by leases from the database. `accounts` holds the rules and
the SQL of balances and leases, `batches` writes what a process has spent, and
`afterwards` books what nothing was reserved for. Why it is so tells docs/adr/0009.
"""
