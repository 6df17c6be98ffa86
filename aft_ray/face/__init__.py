"""What `import aft_ray` gives: the verbs as functions, and their results."""
