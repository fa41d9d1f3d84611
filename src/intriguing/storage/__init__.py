"""Files that are whole, checksummed and safe to read."""
