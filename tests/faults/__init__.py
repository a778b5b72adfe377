# SPDX-License-Identifier: MIT
"""Faults, hostile input, bounds. `PYTHONPATH=.:tests python -m faults` runs all of it in full."""
