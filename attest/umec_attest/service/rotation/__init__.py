"""Rotation: a node in good standing takes other keys, and stays the node that it is."""
