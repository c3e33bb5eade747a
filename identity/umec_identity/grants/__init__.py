"""Grants: what a client that proved itself gets."""
