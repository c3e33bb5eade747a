"""Policies in Cedar that can only fail closed, and the default sets of µMEC.

>>> from umec_policies import Entity, Request, load_default
>>> sorted(load_default("promotion").ids)[0]
'forbid-deny-listed'
"""

from umec_policies.engine import Decision, PolicySet
from umec_policies.errors import FactsInvalid, PolicyDenied, PolicyError, PolicyInvalid
from umec_policies.facts import Entity, Fact, Request
from umec_policies.files import DEFAULT_SETS, load_default, load_folder

__all__ = [
    "DEFAULT_SETS",
    "Decision",
    "Entity",
    "Fact",
    "FactsInvalid",
    "PolicyDenied",
    "PolicyError",
    "PolicyInvalid",
    "PolicySet",
    "Request",
    "load_default",
    "load_folder",
]
