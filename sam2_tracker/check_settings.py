# SPDX-License-Identifier: MIT
"""Says whether the function would accept its settings, before it is deployed.

    SAM2_THREADS=four python -m sam2_tracker.check_settings

Exits with 0, or with 1 and what the function would log at its start: an error, or the warnings of
variables that are no settings. Needs nothing but Python 3.10: the deploy scripts run it on the
machine that deploys.
"""

import os
import sys

from sam2_tracker.errors import ConfigurationError
from sam2_tracker.settings import check_workers, settings_from_environment, unknown_variables

if __name__ == "__main__":
    try:
        check_workers(settings_from_environment(os.environ))
    except ConfigurationError as error:
        sys.exit(error.message)
    sys.exit("\n".join(unknown_variables(os.environ)) or None)
