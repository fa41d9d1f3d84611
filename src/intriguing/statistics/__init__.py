"""Every confidence interval, p-value and correction that the tables print."""
