"""Every kind of tampering by its name: `TAMPERINGS`."""

from umec_attest.testing.fleet.tampering import lists, quotes, states
from umec_attest.testing.fleet.tampering.scene import TAMPERINGS, Scene, Tampering, Verifier

__all__ = ["TAMPERINGS", "Scene", "Tampering", "Verifier", "lists", "quotes", "states"]
