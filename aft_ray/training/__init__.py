"""Training: the loop in plain PyTorch, and Ray Train around it."""
