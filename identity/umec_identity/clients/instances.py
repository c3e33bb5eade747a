"""What the platform may register and remove: application instances on nodes, with the rights of MEC, and nothing else.

Whoever holds the platform's credential starts applications anyway; it shall not become operator, builder or service.
"""

from typing import Final

from umec_identity.clients.rows import ClientRow
from umec_identity.clients.schemas import ClientIn
from umec_identity.errors import RegistrationDenied
from umec_identity.settings import SCOPES

__all__ = ["CLIENTS", "INSTANCES", "check_instance", "check_instance_row"]

CLIENTS: Final = "identity:clients"
"""The scope of those who register any client."""

INSTANCES: Final = "identity:instances"
"""The scope of those who register instances only."""


def check_instance(wanted: ClientIn, *, mp1: str) -> None:
    """Check that a client is an application instance; raises `RegistrationDenied`.

    1. It is an application. 2. It has a tenant, a node and an instance. 3. Its scopes are those of Mp1. 4. Mp1 is its
    one resource. 5. Its tokens are bound to its key.
    """
    faults = {
        "kind is not application": wanted.kind != "application",  # 1
        "tenant, node and instance are not all given": None in (wanted.tenant, wanted.node, wanted.instance),  # 2
        "there are scopes of other APIs than Mp1": not SCOPES["mp1"].issuperset(wanted.scopes),  # 3
        f"resources are not {mp1} alone": wanted.resources != [mp1],  # 4
        "binding is not dpop": wanted.binding != "dpop",  # 5
    }
    if found := [fault for fault, is_so in faults.items() if is_so]:
        raise RegistrationDenied(f"{INSTANCES} is for application instances: {'; '.join(found)}")


def check_instance_row(row: ClientRow) -> None:
    """Check that a registered client is an application instance; raises `RegistrationDenied`."""
    if row.kind != "application" or None in (row.tenant, row.node, row.instance):
        raise RegistrationDenied(f"{INSTANCES} is for application instances, and {row.client_id} is none")
