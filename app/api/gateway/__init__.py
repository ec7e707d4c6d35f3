"""The gateway's addresses: those that other people's clients call."""
