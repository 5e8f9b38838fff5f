"""The ten screens, one in each file."""
