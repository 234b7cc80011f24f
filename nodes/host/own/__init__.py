"""This pack's networks as the host loads and samples them."""
