"""The recipe: its sections, how it is read, and the one error for wrong input."""
