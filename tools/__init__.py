# SPDX-License-Identifier: MIT
"""Programs for this repository's users and developers. None of it ships in the image."""
