"""What a file is, and a configured network out of it."""
