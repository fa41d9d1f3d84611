"""Section 4.3 of the paper: bounds and certificates."""
