# SPDX-License-Identifier: MIT
"""The annotation action from outside CVAT: track the objects of a job to a target frame."""
