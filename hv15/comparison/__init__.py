"""Trainings beside one another: the experiments of a project, or those of any project folders.

- settings: in which settings they differ, and what they are called by these
- trainings: what is known of one, from what it has written
- groups: trainings that differ only in their seeds, with means and deviations
- numbers: the measured columns of the table, and how their numbers are written
- charts: curves over one another
- samples: which videos begin from the same noise, side by side
- tables: the table as CSV and as LaTeX
- page: everything on one page that needs no other file
- written: all files of a comparison
- places: which trainings a person names

All but the pictures is read without torch, so the dashboard uses it too.
"""
