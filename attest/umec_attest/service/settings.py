"""What the attestation service is told once, at its start."""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["DEFAULT_PCRS", "AttestSettings"]

DEFAULT_PCRS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)
"""Firmware, boot loader and Secure Boot state (0-7), kernel and initrd by GRUB or systemd (9, 11, 12), MOK (14)."""


class AttestSettings(BaseModel):
    """Settings of one attestation service.

    `management_url` is the base URL of the management listener without a slash at its end: the issuer of tokens and
    the audience of attestation results. Keys (verifier, challenges, audit) live in `state`, each in a file of 0600.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    management_url: str = Field(pattern=r"^https://[^/?#]+$")
    state: Path
    database: str
    ca_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 (hex) over the DER of the CA that the management listener's certificate leads to: tickets pin it."""
    ek_roots: Path | None = None
    """Folder of certificates of TPM vendors (PEM or DER): roots, and intermediates that lead to them; what lies in its
    sub-folder `anchors` is a root, too. None: only EKs named by tickets or the allow-list."""
    malformed_ek_certificates: Literal["refuse", "tolerate"] = "refuse"
    """Whether certificates with the known mistakes of some vendors (`umec_attest.certificates.der`) are read."""
    software_tpms: bool = False
    """Whether makers of software TPMs are believed, whose certificates lead to a root: for tests and demonstrations."""
    device_roots: Path | None = None
    """The same of makers of devices, who issue IAK and IDevID; None: nobody's are believed."""
    ek_allow_list: frozenset[str] = frozenset()
    """`ek_sha256` of TPMs without EK certificate that may enrol without a ticket."""
    unknown_nodes: Literal["wait", "refuse"] = "wait"
    """What becomes of a TPM that enrols without a ticket, and that no operator allowed: it waits for an operator who
    approves it, or is refused."""
    reference_signers: tuple[Path, ...] = ()
    """PEM files of the public keys that sign reference sets; without one, no reference set is taken."""
    signed_policies: Path | None = None
    """A signed bundle of appraisal policies, in place of all others. Once in use, never an older one again, or none."""
    policy_signers: tuple[Path, ...] = ()
    """PEM files of the public keys that sign it."""
    decision_jwks: Path | None = None
    """JWKS file of the keys that sign decisions about starts of applications. None: of a node whose image
    keeps a log of them no start is believed."""
    decision_issuer: str | None = None
    """Who issues these decisions; None: the MEC platform of this site."""
    pcrs: tuple[int, ...] = Field(default=DEFAULT_PCRS, min_length=1)
    round_seconds: float = Field(default=30.0, gt=0, le=3600)
    silent_rounds: int = Field(default=3, ge=1, le=100)
    """A node that is silent for so many rounds lapses."""
    challenge_seconds: float = Field(default=20.0, gt=0, le=600)
    activation_seconds: float = Field(default=120.0, gt=0, le=3600)
    result_seconds: int = Field(default=300, ge=10, le=600)
    """Life of an attestation result."""
    history_days: int = Field(default=30, ge=1, le=3650)
    """How long the rounds that changed something are told, and the evidence of those that contradicted is kept."""
    operator_may_readmit_untrusted: bool = False
    """Whether an operator may bring an untrusted node back without a new boot."""

    @property
    def issuer(self) -> str:
        """Who issues attestation results and standing statements."""
        return f"{self.management_url}/attest/v1"
