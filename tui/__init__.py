"""The dashboard of hv15: it reads the files of a project and shows them in a terminal."""
