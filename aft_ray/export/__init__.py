"""Trained students: load, export, evaluate, predict."""

from aft_ray.export.student import load_student

__all__ = ["load_student"]
