"""The section "errata": what the paper prints, what it must be, and the measurement that says so."""
