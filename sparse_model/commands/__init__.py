"""The command line, one file per verb: `add_parser` has its options, `run` does it."""
