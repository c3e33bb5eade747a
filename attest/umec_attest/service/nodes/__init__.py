"""Nodes as operators see them: what they are worth and why, and what an operator decides about them."""
