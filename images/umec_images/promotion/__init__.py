"""Promotion: a digest passes stages, and a signed summary says so, one for each stage."""

from umec_images.promotion.endpoints import promotion_router
from umec_images.promotion.evidence import Builders, DenyList, Registry, trusted_builders
from umec_images.promotion.service import Approver, Promoted, Promoter
from umec_images.promotion.summaries import sign_summary, verify_summary

__all__ = [
    "Approver",
    "Builders",
    "DenyList",
    "Promoted",
    "Promoter",
    "Registry",
    "promotion_router",
    "sign_summary",
    "trusted_builders",
    "verify_summary",
]
