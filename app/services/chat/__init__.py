"""Chats, their messages, and the turns that write replies.

`chats` and `messages` hold the rules and the SQL; `turn` runs a turn from the user's
message to the stored reply; `reply` is the text of one reply as it grows, with the
events that tell of it; `context` chooses what a model gets to see.
"""
