"""Issued certificates: which generation of a node each was for."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import RowId, Timestamp
from umec_identity.rows import Base

__all__ = ["CertificateRow"]


class CertificateRow(Base):
    """A certificate, by the SHA-256 thumbprint (x5t#S256) of its DER."""

    __tablename__ = "certificates"

    thumbprint: Mapped[str] = mapped_column(Text, primary_key=True)
    node: Mapped[str] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(RowId)
    not_after: Mapped[datetime] = mapped_column(Timestamp, index=True)
