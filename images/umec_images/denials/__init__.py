"""What operators deny: digests, and versions below a minimum, whoever signed and approved them."""

from umec_images.denials.endpoints import denials_router
from umec_images.denials.service import Denial, Denials, Listing, Minimum

__all__ = ["Denial", "Denials", "Listing", "Minimum", "denials_router"]
