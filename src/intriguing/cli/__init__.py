"""The command line: errors in one line, overrides and names, studies, sweeps, progress bars."""
