"""The groups of settings that make up `train:`; in the config file they stand side by side, without the groups."""
