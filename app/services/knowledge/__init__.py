"""What documents say, cut into passages that can be found by their words."""
