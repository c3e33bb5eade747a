"""Clients: registration, rows and the management API."""
