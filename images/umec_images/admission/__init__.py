"""Admission: may this tenant run this digest at this stage? Deny by default."""

from umec_images.admission.admit import Admission, admit
from umec_images.admission.service import Admitter

__all__ = ["Admission", "Admitter", "admit"]
