# SPDX-License-Identifier: MIT
import sys

from cvat_action.cli import main

sys.exit(main())
