"""Traffic and DNS rules (MEC 011) and what they mean to the data plane."""
