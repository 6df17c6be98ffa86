"""`ray job submit --working-dir . -- python jobs/study.py STUDY [key=value ...]`: see `aft-ray study --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
