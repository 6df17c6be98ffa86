"""Search on Ray Tune: beta, combinations of teachers and any other key, over one set of features."""
