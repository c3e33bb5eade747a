"""Keys of the services' own clients, and the operator's credential file."""

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from umec_core.client import Credential, load_credential, save_credential
from umec_core.keys import load_or_create_key
from umec_identity.clients.schemas import ClientIn
from umec_identity.service import operator_seed, service_seed

__all__ = ["SERVICES", "Credentials"]

SERVICES: Final = ("umec-platform", "umec-images", "umec-identity")
"""The services that call others, each as a client of its own."""

OPERATOR: Final = "operator"


class Credentials:
    """The clients that a site starts with: its own services, and the operator.

    The services' keys stay in `folder`; the operator's credential is a file of 0600 to be handed to whoever operates.
    """

    def __init__(self, folder: Path, operator_file: Path, *, issuer: str, ca: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._issuer = issuer
        self._ca = ca
        self._keys = {name: load_or_create_key(folder / f"{name}.key") for name in SERVICES}
        if not operator_file.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            save_credential(operator_file, Credential.of(issuer=issuer, client_id=OPERATOR, key=key, ca=ca))
        self._operator = load_credential(operator_file)

    def seeds(self) -> list[ClientIn]:
        """Return the registrations of all of them."""
        services = [service_seed(name, key.public_key()) for name, key in self._keys.items()]
        return [*services, operator_seed(self._operator.key().public_key(), client_id=OPERATOR)]

    def service(self, name: str) -> Credential:
        """Return the credential of a service; KeyError for an unknown one."""
        return Credential.of(issuer=self._issuer, client_id=name, key=self._keys[name], ca=self._ca)
