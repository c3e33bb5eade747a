"""The rows of the MEC host, a module for each noun that fills them. They know each other, and nothing else."""
