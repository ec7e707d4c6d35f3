"""Projects: what they are, who is in them, and what their chats lean on."""
