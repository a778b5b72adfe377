# SPDX-License-Identifier: MIT
"""Our function beside the official predictor and a re-creation of CVAT's agent function.

python -m benchmarks              at most 10 minutes on two cores
python -m benchmarks --full       more objects, PNG
benchmarks/gpu.sh                 a GPU machine, within 9 minutes
"""
