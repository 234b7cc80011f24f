"""Token routes through the host's own transformers."""
