"""Application descriptors and packages (MEC 010-2)."""
