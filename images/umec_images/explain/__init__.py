"""Why an image would start, or not: every check that can be done, what it expected and what it found."""

from umec_images.explain.admission import Explanation, explain_admission
from umec_images.explain.checks import Check, Status
from umec_images.explain.proof import explain_proof

__all__ = ["Check", "Explanation", "Status", "explain_admission", "explain_proof"]
