"""The eight screens, one file or folder each."""
