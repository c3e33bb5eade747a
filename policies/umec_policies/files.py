"""Policy sets in folders: `schema.cedarschema` and any number of `*.cedar`, read in the order of their names."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from umec_policies.engine import PolicySet
from umec_policies.errors import PolicyInvalid

__all__ = ["DEFAULT_SETS", "SCHEMA_FILE", "default_folder", "load_default", "load_folder"]

SCHEMA_FILE: Final = "schema.cedarschema"
DEFAULT_SETS: Final = ("admission", "appraisal", "promotion", "tokens")
"""The policy sets that come with the package."""


def load_folder(folder: Path | Traversable) -> PolicySet:
    """Return the policy set of a folder; raises PolicyInvalid."""
    try:
        found = {entry.name: entry for entry in folder.iterdir() if entry.is_file()}
        names = sorted(name for name in found if name.endswith(".cedar"))
        if SCHEMA_FILE not in found:
            raise PolicyInvalid(f"there is no {SCHEMA_FILE} in {folder}: without a schema nothing is decided")
        policies = "\n".join(found[name].read_text(encoding="utf-8") for name in names)
        schema = found[SCHEMA_FILE].read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyInvalid(f"the policies in {folder} cannot be read: {error}") from error
    return PolicySet(policies, schema)


def default_folder(name: str) -> Traversable:
    """Return the folder of a policy set that comes with the package; raises PolicyInvalid for an unknown name."""
    if name not in DEFAULT_SETS:
        raise PolicyInvalid(f"there is no default policy set {name!r}; there are {', '.join(DEFAULT_SETS)}")
    return files("umec_policies").joinpath("sets", name)


def load_default(name: str) -> PolicySet:
    """Return a policy set that comes with the package: one of DEFAULT_SETS."""
    return load_folder(default_folder(name))
