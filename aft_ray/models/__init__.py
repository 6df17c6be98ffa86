"""Teachers and students, and their common parts: transforms, weights files and the adapters of their libraries."""
