"""What streams must look like, as state machines that check them event by event."""
