# SPDX-License-Identifier: MIT
import sys

from cvat_action.cli import main


def run() -> None:
    sys.exit(main())


if __name__ == "__main__":
    run()
