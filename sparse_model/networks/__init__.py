"""The networks, one architecture a file: its sizes as a dataclass, and a forward pass to read from top to bottom."""
