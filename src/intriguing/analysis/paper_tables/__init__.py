"""Tables 1 to 4 of the paper, the transfer matrices, and their figures."""
