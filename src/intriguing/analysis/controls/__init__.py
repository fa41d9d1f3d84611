"""Controls of the paper's claims, one section a question."""
