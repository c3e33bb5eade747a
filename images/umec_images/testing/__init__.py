"""Adversaries of images, for the demo and the tests: they sign for real, with what they have."""
