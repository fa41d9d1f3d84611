"""Weights & Biases, and nothing else. No other package imports wandb."""
