"""Adversaries of images, for the demo and the tests: they sign for real, with what they have."""

from umec_images.testing.thief import Thief, retired_authority

__all__ = ["Thief", "retired_authority"]
