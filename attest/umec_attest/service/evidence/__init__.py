"""Rounds: a challenge, evidence, a verdict, and what it does to the standing of a node."""
