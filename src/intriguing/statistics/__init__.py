"""Counts, confidence intervals, tests and effect sizes."""
