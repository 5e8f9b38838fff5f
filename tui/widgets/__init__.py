"""Parts of screens, one in each file."""
