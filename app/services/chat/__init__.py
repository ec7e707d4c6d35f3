"""Chats, their messages, and the turns that write replies.

`chats`, `messages`, `branches`, `search`, `export` and `share` hold the rules and the
SQL; `turns` begins turns, with the rows of `beginning`, and ends them; `turn` runs one
from the user's message to the stored reply; `reply` is the text of one reply as it
grows, with the events that tell of it; `context` chooses what a model gets to see.
"""
