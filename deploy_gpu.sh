#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds the tracker, or the interactor, for NVIDIA GPUs and runs it where CVAT runs: ./deploy_gpu.sh --help
set -euo pipefail
# shellcheck source=deploy_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/deploy_common.sh"
main gpu "$@"
