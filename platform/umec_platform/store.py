"""The rows of the MEC host: one schema, a module for each noun that fills it. Desired state, never the state of a host.

Documents are kept as JSON in the form of the standard that defined them; what is searched has a column of its own.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase

__all__ = ["MIGRATIONS", "Base", "Name"]

MIGRATIONS: Final = Path(__file__).parent / "migrations"

Name: Final = String(128)
"""The type of every identifier: ours have 63 characters at most, those of standards 128."""


class Base(DeclarativeBase):
    """All rows of the MEC host."""
