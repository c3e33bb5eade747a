"""Reference sets: what the image of a node may measure, as a pinned signer says."""
