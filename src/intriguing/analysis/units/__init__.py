"""Section 3 of the paper: units against directions."""
