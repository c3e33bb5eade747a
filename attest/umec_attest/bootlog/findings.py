"""What an appraisal or an extraction found to be wrong or worth a look."""

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: a stable kebab-case `id`, and what was expected and found where that can be said."""

    id: str
    detail: str
    expected: str | None = None
    found: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return {"id", "detail"} and, where known, "expected" and "found"."""
        members = {"id": self.id, "detail": self.detail, "expected": self.expected, "found": self.found}
        return {name: member for name, member in members.items() if member is not None}
