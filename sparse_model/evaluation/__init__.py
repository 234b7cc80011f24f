"""Measuring guidance: features, metrics, cells of a results file, sweeps over them, plots."""
