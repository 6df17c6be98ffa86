"""Data sets with a name: those inside Python packages, and known tasks of the hub."""
