"""The modules beside this file are found by their names, by the benchmark's script too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
