"""Run folders: names, identity, lock, records, provenance, interrupts."""
