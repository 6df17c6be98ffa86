"""The verbs as functions, and their results, as `import aft_ray` gives them."""
