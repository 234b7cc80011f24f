"""One guided run in the host."""
