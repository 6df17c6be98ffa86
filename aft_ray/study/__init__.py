"""Studies: one comparison of methods over many settings, which ends in one table and one figure."""
