# SPDX-License-Identifier: MIT
"""Our function beside the official predictor and a re-creation of CVAT's agent function.

python -m benchmarks              at most 10 minutes on two cores
python -m benchmarks --full       more objects, PNG
benchmarks/gpu.sh                 a GPU machine, within 9 minutes
"""

import os

# Before torch is imported. All that is compared runs with the same: threads that wait politely,
# since the server and this process take turns on the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
