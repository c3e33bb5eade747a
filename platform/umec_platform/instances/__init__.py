"""Application instances and their life cycle (MEC 010-2)."""
