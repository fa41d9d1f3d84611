"""Section 4.2 of the paper: training on adversarial examples."""
