"""The dashboard of hv15: reads the files of a project and shows them in a terminal."""
