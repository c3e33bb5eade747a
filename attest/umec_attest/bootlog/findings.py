"""What an appraisal or an extraction found to be wrong or worth a look."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: a stable kebab-case `id`, and what was expected and found where that can be said.

    `stages` are the parts of a boot that it is about, in words for an operator; `detail` has them, too.
    """

    id: str
    detail: str
    expected: str | None = None
    found: str | None = None
    stages: Sequence[str] = ()

    def to_json(self) -> dict[str, str]:
        """Return {"id", "detail"} and, where known, "expected" and "found"."""
        members = {"id": self.id, "detail": self.detail, "expected": self.expected, "found": self.found}
        return {name: member for name, member in members.items() if member is not None}
