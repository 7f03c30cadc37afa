"""Runs of runs: the learning-rate search and sweeps."""
