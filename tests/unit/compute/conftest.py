import sys
from pathlib import Path

# `secagg_cohort` stands beside the published vectors, which it makes.
sys.path.insert(0, str(Path(__file__).parents[2] / "vectors"))
