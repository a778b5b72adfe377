# SPDX-License-Identifier: MIT
"""What the four files on top stand on: the wire, geometry, records, settings."""
