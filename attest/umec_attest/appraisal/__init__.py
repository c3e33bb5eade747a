"""Appraisal: verified evidence -> findings -> facts -> policies -> verdict and trust vector.

quote, log, reference set  -> BootJudged   judge_boot   what the boot alone decides; `AppraisalCache` keeps it
  -> Appraisal                             appraise     with clock, time and policies
"""

from umec_attest.appraisal.boot import AppraisalCache, BootJudged, allowed_forms, judge_boot, of_boot
from umec_attest.appraisal.outdated import outdated_finding
from umec_attest.appraisal.result import Appraisal, Verdict, appraise

__all__ = [
    "Appraisal",
    "AppraisalCache",
    "BootJudged",
    "Verdict",
    "allowed_forms",
    "appraise",
    "judge_boot",
    "of_boot",
    "outdated_finding",
]
