"""Secrets of nodes: written by operators, kept encrypted, released to the one TPM of a node in good standing."""
