"""Datasets and the token-sparse training loop."""
