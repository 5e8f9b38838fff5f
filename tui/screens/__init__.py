"""The nine screens, one in each file."""
