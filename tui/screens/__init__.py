"""The eight screens, one in each file."""
