"""Tenants on the wire."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from umec_core.errors import UmecError
from umec_platform.mec import MAX_LIST
from umec_platform.rules.confine import check_domain, parse_network

__all__ = ["Id", "NewTenant"]

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""An identifier of ours."""


def _network(text: str) -> str:
    try:
        return str(parse_network(text))
    except UmecError as error:
        raise ValueError(error.detail) from None


def _domain(text: str) -> str:
    try:
        return check_domain(text)
    except UmecError as error:
        raise ValueError(error.detail) from None


class NewTenant(BaseModel):
    """A tenant to be made. `addresses` (prefixes) and `domains` are what its rules may touch beside its instances.

    Without `domains`, the tenant holds `ID.mec.internal`; `internal` is a top level reserved for private use.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Id
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    addresses: list[Annotated[str, AfterValidator(_network)]] = Field(default=[], max_length=MAX_LIST)
    domains: list[Annotated[str, AfterValidator(_domain)]] | None = Field(default=None, max_length=MAX_LIST)

    def granted_domains(self) -> list[str]:
        """Return the names that the tenant holds."""
        return [f"{self.id}.mec.internal"] if self.domains is None else self.domains
