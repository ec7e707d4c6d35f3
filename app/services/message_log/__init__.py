"""What models were asked and said, for those who run the installation.

`entry` is what is written of a call; `writer` stores entries in batches; `reading`
shows them to the desk, and notes each look in the audit; `retention` says what
is kept of whom, and for how long.
"""
