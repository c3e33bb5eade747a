"""in-toto statements, and the two predicates that decide about images: SLSA provenance and verification summaries."""

from umec_images.statements.intoto import Statement, Subject, encode_statement, parse_statement
from umec_images.statements.provenance import PROVENANCE, Provenance, parse_provenance
from umec_images.statements.summary import SUMMARY, Summary, encode_summary, parse_summary

__all__ = [
    "PROVENANCE",
    "SUMMARY",
    "Provenance",
    "Statement",
    "Subject",
    "Summary",
    "encode_statement",
    "encode_summary",
    "parse_provenance",
    "parse_statement",
    "parse_summary",
]
