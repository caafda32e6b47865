"""What is handed to others: the same bytes for a commit, and all that an isolated machine needs."""
