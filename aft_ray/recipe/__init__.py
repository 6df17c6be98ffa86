"""The recipe: its sections, its reader, and the one error for wrong input."""
