"""Teachers and students, and what they share: transforms, weights files and the adapters of their libraries."""
