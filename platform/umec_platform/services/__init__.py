"""The registry of services (MEC 011)."""
