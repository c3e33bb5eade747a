"""Token keys: the ring and the published set."""
