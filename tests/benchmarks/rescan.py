#!/usr/bin/env python3
"""Times rescans against clamdscan, python-clamd's way, and find: see --help."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.benchmarks.command import main

    sys.exit(main())
