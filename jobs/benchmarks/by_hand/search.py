"""A plain script: eight strengths, one after the other.   python search.py FOLDER STEPS"""

import sys

from train import train

BETAS = (1, 2, 5, 10, 20, 40, 80, 160)

if __name__ == "__main__":
    found = {beta: train(sys.argv[1], beta, int(sys.argv[2])) for beta in BETAS}
    best = max(found, key=lambda beta: found[beta][0])
    print(f"beta {best}: validation {found[best][0]:.4f} test {found[best][1]:.4f}")
