# SPDX-License-Identifier: MIT
"""SAM 2's modules, rearranged for many objects and repeated frames. Same weights, same results."""
