"""Node images: built from a recipe and Debian's packages, the same bytes each time, signed for Secure Boot."""

from umec_images.nodeimage.builder import Built, Plan, build_image, moment
from umec_images.nodeimage.fetch import Sources
from umec_images.nodeimage.keys import FileSigner, SecureBootKeys, load_certificates, load_signer, make_keys
from umec_images.nodeimage.lock import Lock, load_lock, parse_lock
from umec_images.nodeimage.recipe import Recipe, Site, load_recipe, parse_recipe, with_site

__all__ = [
    "Built",
    "FileSigner",
    "Lock",
    "Plan",
    "Recipe",
    "SecureBootKeys",
    "Site",
    "Sources",
    "build_image",
    "load_certificates",
    "load_lock",
    "load_recipe",
    "load_signer",
    "make_keys",
    "moment",
    "parse_lock",
    "parse_recipe",
    "with_site",
]
