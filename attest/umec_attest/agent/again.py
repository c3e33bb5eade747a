"""Refusals of evidence that are no end: another challenge heals them, in a round as in the release of a secret."""

from typing import Final

__all__ = ["ASK_AGAIN", "LIST_CONTINUES", "MOST_PARTS"]

ASK_AGAIN: Final = frozenset(
    {"boot-log-required", "evidence-stale", "nonce-expired", "nonce-superseded", "nonce-unknown"}
)
"""The first round after a boot, another round in between, a slow TPM, a verifier that began with other secrets."""
LIST_CONTINUES: Final = "runtime-list-continues"
MOST_PARTS: Final = 100
"""Requests for a list of what ran that is too long for one.

Each has some 4,500 entries, and what the verifier had already is not sent again.
"""
