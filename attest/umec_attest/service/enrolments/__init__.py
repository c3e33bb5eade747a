"""Enrolments: which TPM a node is, and which keys in it speak for the node."""
