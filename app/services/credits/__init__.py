"""Money: what users may spend, what they spent, and who says so.

`leasing` is what calls of models use: it reserves and settles in memory. It spends from
`purses`: a `purse` of each user, and a budget of each API key (`keys`) and day, which
are blocks that the database leases to this process. `accounts` holds the rules and the
SQL of balances and leases, `budgets` those of keys' budgets; `batches` writes what a
process has spent, and `afterwards` books what nothing was reserved for. Why it is so
tell docs/adr/0009 and 0018.
"""
