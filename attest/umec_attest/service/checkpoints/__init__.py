"""Checkpoints of the audit log, for those who remember older ones: nodes, and whoever else wants to."""
