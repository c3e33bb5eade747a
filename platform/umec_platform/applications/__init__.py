"""Application support (MEC 011): readiness, termination, time, registrations."""
