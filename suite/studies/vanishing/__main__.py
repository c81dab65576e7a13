"""Prints the tables of docs/vanishing.md."""

from suite.studies.vanishing.tables import tables

print(tables())
