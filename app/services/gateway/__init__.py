"""Models for other people's clients, in the wire formats that those speak."""
