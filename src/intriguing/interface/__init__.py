"""Fit networks, craft adversarial sets and tabulate transfer from Python: no config, no run folder."""
