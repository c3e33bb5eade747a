"""Admission: may this tenant run this digest at this stage? Deny by default."""

from umec_images.admission.admit import Admission, Terms, admit
from umec_images.admission.service import Admitter

__all__ = ["Admission", "Admitter", "Terms", "admit"]
