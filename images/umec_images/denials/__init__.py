"""What an operator denies: digests that are neither promoted nor admitted, whoever signed and approved them."""

from umec_images.denials.endpoints import denials_router
from umec_images.denials.service import Denial, Denials

__all__ = ["Denial", "Denials", "denials_router"]
