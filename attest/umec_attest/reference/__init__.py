"""Reference sets: which PCR values a node image may have, said by a pinned signer, for a limited time."""

from umec_attest.reference.draft import ReferenceDraft, parse_draft, render_draft
from umec_attest.reference.grace import MAX_GRACE, Grace
from umec_attest.reference.models import FirmwareModel, match_model
from umec_attest.reference.owner import render_owner
from umec_attest.reference.packing import MAX_PUBLISHED, MAX_SENT, PACKED_TYPE, pack, unpack
from umec_attest.reference.stages import Stage, Stages, extend_all, render_stages
from umec_attest.reference.statement import (
    PREDICATE_TYPE,
    ReferenceSet,
    check_valid_at,
    read_reference_set,
    sign_reference_set,
    verify_reference_set,
)
from umec_attest.reference.versions import FiledSet, Older, Versions, fits, versions_of

__all__ = [
    "MAX_GRACE",
    "MAX_PUBLISHED",
    "MAX_SENT",
    "PACKED_TYPE",
    "PREDICATE_TYPE",
    "FiledSet",
    "FirmwareModel",
    "Grace",
    "Older",
    "ReferenceDraft",
    "ReferenceSet",
    "Stage",
    "Stages",
    "Versions",
    "check_valid_at",
    "extend_all",
    "fits",
    "match_model",
    "pack",
    "parse_draft",
    "read_reference_set",
    "render_draft",
    "render_owner",
    "render_stages",
    "sign_reference_set",
    "unpack",
    "verify_reference_set",
    "versions_of",
]
