"""Promotion: a digest passes stages, and a signed summary says so, one for each stage."""

from umec_images.promotion.denylist import DenyList
from umec_images.promotion.endpoints import promotion_router
from umec_images.promotion.evidence import Builders, Registry, trusted_builders
from umec_images.promotion.history import History, StoredHistory
from umec_images.promotion.question import Approver, Wish
from umec_images.promotion.service import Promoted, Promoter
from umec_images.promotion.summaries import sign_summary, verify_summary

__all__ = [
    "Approver",
    "Builders",
    "DenyList",
    "History",
    "Promoted",
    "Promoter",
    "Registry",
    "StoredHistory",
    "Wish",
    "promotion_router",
    "sign_summary",
    "trusted_builders",
    "verify_summary",
]
