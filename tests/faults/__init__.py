# SPDX-License-Identifier: MIT
"""Faults, hostile input and bounds. `PYTHONPATH=.:tests python -m faults` runs the full campaigns."""
