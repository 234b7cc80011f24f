"""What networks are conditioned on: labels, and prompts with their encoders."""
