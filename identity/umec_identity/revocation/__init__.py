"""Revocation and introspection of tokens."""
