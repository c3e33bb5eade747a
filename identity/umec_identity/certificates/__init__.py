"""The platform CA and the certificates of nodes."""
