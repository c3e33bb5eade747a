"""Settings of a site on one machine."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AttestOptions",
    "IdentityOptions",
    "ImagesOptions",
    "NetdSettings",
    "PlatformOptions",
    "SiteSettings",
    "default_state",
]

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Tenant = Name
ClientId = Name


def default_state() -> Path:
    """Return where state lives: /var/lib/umec for root, else the user's own state folder (XDG base directories)."""
    if os.geteuid() == 0:
        return Path("/var/lib/umec")
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "umec"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetdSettings(_Strict):
    """A `umec netd` that this machine starts: one MEC host."""

    node: Name
    namespace: Name | None = None
    """A named network namespace to run in; none is the machine's own."""
    access: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,14}$")]
    """The interface on the side of the users' devices."""
    access_address: str
    """Its address with the prefix length."""
    pool: str = "10.64.0.0/16"
    """Where tenants' subnets come from."""
    agent: Path | None = None
    """State folder of this node's agent, which then measures every start into the TPM; None: nobody does."""


class AttestOptions(_Strict):
    """The verifier. What is not named here is `umec_attest.service.AttestSettings`'s to say."""

    database: str | None = None
    """SQLAlchemy URL (postgresql+asyncpg://…); none: SQLite in the state folder. The same for the other services."""
    reference_signers: tuple[Path, ...] = ()
    """PEM public keys whose reference sets are believed. Without one, no node can become trusted."""
    signed_policies: Path | None = None
    """A signed bundle of appraisal policies, in place of those in `policies`. Once in use, never an older one again."""
    policy_signers: tuple[Path, ...] = ()
    """PEM public keys of who signs it."""
    ek_roots: Path | None = None
    """A folder of TPM makers' CA certificates. Without it, no EK certificate is believed."""
    malformed_ek_certificates: Literal["refuse", "tolerate"] = "refuse"
    """Whether the malformed certificates of some makers (ST, Nuvoton) are read."""
    software_tpms: bool = False
    """Whether makers of software TPMs are believed: for tests and demonstrations."""
    device_roots: Path | None = None
    """A folder of CA certificates of device makers. Without it, no IAK and no IDevID is believed."""
    ek_allow_list: frozenset[str] = frozenset()
    """`ek_sha256` of TPMs without certificate that may enrol without a ticket."""
    unknown_nodes: Literal["wait", "refuse"] = "wait"
    """What becomes of a TPM that enrols without a ticket, and that nobody allowed: it waits for an approval, or not."""
    pcrs: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)
    round_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    silent_rounds: Annotated[int, Field(ge=1, le=100)] = 3
    history_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long rounds that changed something are told, and the evidence of those that contradicted is kept."""
    operator_may_readmit_untrusted: bool = False
    """Whether an operator may bring an untrusted node back without a new boot."""


class IdentityOptions(_Strict):
    """The authorization server."""

    database: str | None = None
    token_seconds: Annotated[int, Field(ge=10, le=300)] = 300
    verifier_jwks: Path | None = None
    """The verifier keys that this site believes (JWKS), where they are not those of its own verifier."""


class ImagesOptions(_Strict):
    """The registry and its signing authority."""

    database: str | None = None
    builders: dict[Tenant, tuple[ClientId, ...]] = Field(default_factory=dict)
    """Whose signatures count for a tenant's images: clients of the kind builder; without: `TENANT-builder`."""


class PlatformOptions(_Strict):
    """The MEC platform."""

    database: str | None = None
    lease_seconds: Annotated[float, Field(gt=0, le=3600)] = 90.0
    """How long rules hold without a fresh signed standing of their node."""
    feed_age_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    """How old the standing feed may be before every call in a node's name is refused."""


class SiteSettings(_Strict):
    """Everything `umec up` can be told; the defaults serve one machine on loopback."""

    state: Path = Field(default_factory=default_state)
    host: str = "127.0.0.1"
    names: tuple[str, ...] = ("localhost",)
    """Further names of the listeners, for their certificate."""
    management_port: Port = 8443
    mp1_port: Port = 8444
    registry_port: Port = 5443
    policies: Path | None = None
    """A folder with policy sets (appraisal, admission, promotion, tokens) in place of the built-in ones."""
    attest: AttestOptions = AttestOptions()
    identity: IdentityOptions = IdentityOptions()
    images: ImagesOptions = ImagesOptions()
    platform: PlatformOptions = PlatformOptions()
    netd: tuple[NetdSettings, ...] = ()
    """The MEC hosts that this machine is: a `umec netd` is started for each."""

    @property
    def management(self) -> str:
        """The management listener's URL, which is also the issuer of tokens."""
        return f"https://{self.host}:{self.management_port}"

    @property
    def mp1(self) -> str:
        """The Mp1 listener's URL."""
        return f"https://{self.host}:{self.mp1_port}"

    @property
    def registry(self) -> str:
        """The registry listener's URL."""
        return f"https://{self.host}:{self.registry_port}"
