"""What every node is worth now: changes, the signed feed, and the deadline of the silent."""
