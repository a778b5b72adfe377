# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What deploy_cpu.sh and deploy_gpu.sh share. Runs on the bash 3.2 of macOS too.

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
KIND=tracker # or interactor
IMAGE_NAME=cvat.pth.facebookresearch.sam2
DEFAULT_PORT=32100 # as in function.yaml; above Docker's own choices start at 32768
PORTS=100          # how many ports from there on are tried
LISTENERS=/dev/tcp/127.0.0.1 # bash connects to what is opened there
# Asked inside its container, never through the proxy that Docker's configuration may put there.
ASK='import urllib.request as u; print(u.build_opener(u.ProxyHandler({})).open("http://127.0.0.1:8080/", timeout=20).read().decode())'

# What ships: these files and the whole package, beside the function yamls and weights/.
FILES=(
    LICENSE main.py tracker.py request_objects.py interactor.py model_handler.py tracker_state.py sam2_tracker
    requirements.txt requirements-torch.txt requirements-sam2.txt
)
CONFIGS=(function.yaml function-gpu.yaml function-interactor.yaml function-interactor-gpu.yaml)

READY_SECONDS=120
STOP_SECONDS=70 # workerTerminationTimeout in the yamls, and what Nuclio itself takes to stop
CPU_DISK_GIB=4 # the image, its build context and pip's downloads; docs/deploy.md, "Sizes"
GPU_DISK_GIB=12
GPU_DRIVER=580 # the first NVIDIA driver for CUDA 13, which PyPI's torch brings along

usage() {
    cat <<USAGE
Usage: ./deploy_$DEVICE.sh [options]

Builds the function and deploys it into CVAT's Nuclio on this machine.

  --model NAME           sam2.1_hiera_tiny (default), _small, _base_plus, _large, sam2_hiera_*,
                         or a Hugging Face id such as facebook/sam2.1-hiera-large; for a CPU
                         efficienttam_ti_512 (fastest), _s_512, _ti_2, _s_2, _ti_1, _s_1, _ti, _s
  --sha256 HEX           checksum of the file; needed for SAM 2 (not 2.1)
  --config FILE          your own configuration and checkpoint instead of a model of the table
  --checkpoint FILE
  --interactor           deploy the interactor, which makes masks from clicks, instead of the
                         tracker; it is a function of its own beside it, and needs no Redis
  --workers N            processes, each with its own copy of the model (default: 1)
  --env NAME=VALUE       a setting of the function (README, "Settings"); may be repeated
  --memory SIZE          limit of the container's memory, for example 6Gi (default: none)
  --port N               the function's port on this machine (default: the one that it has,
                         else the first free one from $DEFAULT_PORT on)
  --network NAME         CVAT's Docker network (default: cvat_cvat)
  --torch-index URL      another package index for torch, e.g. for an older NVIDIA driver
  --pip-index URL        another package index than PyPI for everything else
  --image IMAGE          run this image, pulled if it is not on this machine; build nothing
  --rollback             run the last image that answered before this one; build nothing
  --stage DIR            only write what would be deployed to DIR: the clean copy of the function,
                         or with --image its configuration alone
  --redis-secret NAME    with --stage, for Kubernetes: the secret that has the store's password
                         under the key 'password'
  --force                deploy in spite of what the preflight checks find
  --dry-run              print the commands, run none
  -h, --help

Environment:
  CVAT_FUNCTIONS_REDIS_HOST, CVAT_FUNCTIONS_REDIS_PORT, CVAT_FUNCTIONS_REDIS_PASSWORD
                         where the tracker keeps its tracks
                         (default: CVAT's own cvat_redis_ondisk, port 6666; with --stage: none)
  SAM2_WEIGHTS_URL       mirror, folder or file to take the checkpoint from;
                         a file in weights/ beside this script is taken first
USAGE
}

die() {
    printf '%s\n' "deploy_$DEVICE.sh: $*" >&2
    exit 1
}

# Prints a command so that it can be pasted; runs it unless --dry-run.
run() {
    say "$(quoted "$@")"
    [ -n "$DRY_RUN" ] || "$@"
}

# A command as one line for a shell, without the password.
quoted() {
    local word line=""
    for word in "$@"; do
        case "$word" in
        CVAT_FUNCTIONS_REDIS_PASSWORD=*) word='CVAT_FUNCTIONS_REDIS_PASSWORD=***' ;;
        esac
        case "$word" in
        '' | *[!A-Za-z0-9_@%+=:,./*-]*) line="$line '$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'" ;;
        *) line="$line $word" ;;
        esac
    done
    printf '%s' "${line# }"
}

say() {
    [ -n "$DRY_RUN" ] || printf '+ '
    printf '%s\n' "$*"
}

parse_options() {
    MODEL=sam2.1_hiera_tiny MODEL_GIVEN="" SHA256="" CONFIG="" CHECKPOINT="" NETWORK="" TORCH_INDEX="" PIP_INDEX=""
    IMAGE="" WORKERS=1 MEMORY="" PORT="" STAGE="" STAGE_ONLY="" REDIS_SECRET="" FORCE="" DRY_RUN=""
    ENVIRONMENT=() STORE=()
    while [ $# -gt 0 ]; do
        case "$1" in
        --model | --sha256 | --config | --checkpoint | --env | --network | --torch-index | --pip-index | \
            --image | --workers | --memory | --port | --stage | --redis-secret)
            { [ $# -gt 1 ] && [ -n "$2" ]; } || die "$1 needs a value."
            ;;
        esac
        case "$1" in
        --model) MODEL="$2" MODEL_GIVEN=1 ;;
        --sha256) SHA256="$2" ;;
        --config) CONFIG="$2" ;;
        --checkpoint) CHECKPOINT="$2" ;;
        --network) NETWORK="$2" ;;
        --torch-index) TORCH_INDEX="$2" ;;
        --pip-index) PIP_INDEX="$2" ;;
        --image) IMAGE="$2" ;;
        --workers) WORKERS="$2" ;;
        --memory) MEMORY="$2" ;;
        --port) PORT="$2" ;;
        --redis-secret) REDIS_SECRET="$2" ;;
        --stage) STAGE="$2" STAGE_ONLY=1 ;;
        --env)
            [[ "$2" =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || die "--env is NAME=VALUE, not '$2'."
            case "$2" in
            SAM2_MODEL=* | SAM2_CONFIG=* | SAM2_CHECKPOINT=*)
                die "the image holds one model's file; choose it with --model, or --config and --checkpoint."
                ;;
            SAM2_WEIGHTS_URL=*) die "set SAM2_WEIGHTS_URL in the environment of this script: weights are fetched for the build." ;;
            SAM2_WEIGHTS_DIR=*) die "the image has its weights; choose them with --model, or --config and --checkpoint." ;;
            SAM2_FUNCTION=*) die "choose the interactor with --interactor." ;;
            SAM2_DEVICE=cuda*) [ "$DEVICE" = gpu ] || die "this function gets no GPU; deploy it with ./deploy_gpu.sh." ;;
            SAM2_WORKERS=*) die "give the number of workers with --workers." ;;
            CVAT_FUNCTIONS_REDIS_*) die "set ${2%%=*} in the environment of this script, not with --env." ;;
            esac
            add_setting "$2"
            ;;
        --force | --dry-run | --rollback | --interactor)
            case "$1" in
            --interactor) KIND=interactor ;;
            --force) FORCE=1 ;;
            --dry-run) DRY_RUN=1 ;;
            --rollback) IMAGE=previous ;;
            esac
            shift
            continue
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) die "unknown option '$1'; --help lists them." ;;
        esac
        shift 2
    done
    check_options
}

# Settings of the function, NAME=VALUE each; they go into the yaml that is deployed.
add_setting() {
    local setting
    for setting in ${ENVIRONMENT[@]+"${ENVIRONMENT[@]}"}; do
        [ "${setting%%=*}" != "${1%%=*}" ] || die "--env ${1%%=*} is given twice."
    done
    case "$1" in *$'\n'*) die "a value of --env is one line." ;; esac
    ENVIRONMENT+=("$1")
}

check_options() {
    FUNCTION="pth-facebookresearch-sam2-$KIND"
    CONTAINER="nuclio-nuclio-$FUNCTION"
    local own=""
    if [ "$KIND" = interactor ]; then
        DEFAULT_PORT=$((DEFAULT_PORT + 1)) # as in function-interactor.yaml
        own=-interactor
    fi
    # Of each function, for both may run the same image: the last image that answered, the one that
    # --rollback brings back, and the name that it then runs under.
    ANSWERED="$IMAGE_NAME:answered$own" PREVIOUS="$IMAGE_NAME:previous$own" ROLLBACK="$IMAGE_NAME:rollback$own"
    [ "$IMAGE" != previous ] || IMAGE="$PREVIOUS"
    # facebook/sam2.1-hiera-base-plus is sam2.1_hiera_base_plus
    case "$MODEL" in facebook/*)
        MODEL="$(printf '%s' "${MODEL#facebook/}" | tr - _)"
        ;;
    esac
    case "$MODEL" in
    sam2.1_hiera_tiny | sam2.1_hiera_small | sam2.1_hiera_base_plus | sam2.1_hiera_large) ;;
    sam2_hiera_tiny | sam2_hiera_small | sam2_hiera_base_plus | sam2_hiera_large) ;;
    efficienttam_ti | efficienttam_ti_512 | efficienttam_ti_1 | efficienttam_ti_2) ;;
    efficienttam_s | efficienttam_s_512 | efficienttam_s_1 | efficienttam_s_2) ;;
    sam2.1_hiera_micro) die "the micro model is for demonstrations and tests, not for annotation." ;;
    *) die "unknown model '$MODEL'; --help lists them." ;;
    esac
    if [ -n "$SHA256" ] && ! [[ "$SHA256" =~ ^[0-9a-fA-F]{64}$ ]]; then
        die "--sha256 has 64 hexadecimal digits, not '$SHA256'."
    fi
    local file
    if [ -n "$CONFIG$CHECKPOINT" ]; then
        { [ -n "$CONFIG" ] && [ -n "$CHECKPOINT" ]; } || die "--config and --checkpoint belong together."
        for file in "$CONFIG" "$CHECKPOINT"; do
            [ -f "$file" ] || die "there is no file '$file'."
            [[ "${file##*/}" =~ ^[A-Za-z0-9._+-]+$ ]] ||
                die "rename '$file': letters, digits and . _ + - are allowed."
        done
    fi
    local url plain='^[A-Za-z0-9:/?&=._~%@+,-]+$'
    for url in "$TORCH_INDEX" "$PIP_INDEX" "${SAM2_WEIGHTS_URL:-}"; do
        case "$url" in http://* | https://*)
            [[ "$url" =~ $plain ]] || die "'$url' is no plain URL."
            ;;
        esac
    done
    case "$TORCH_INDEX" in '' | http://* | https://*) ;; *) die "--torch-index is a URL." ;; esac
    case "$PIP_INDEX" in '' | http://* | https://*) ;; *) die "--pip-index is a URL." ;; esac
    [[ "$WORKERS" =~ ^[1-9][0-9]?$ ]] || die "--workers is a number from 1 to 99, not '$WORKERS'."
    [ "$WORKERS" = 1 ] || add_setting "SAM2_WORKERS=$WORKERS"
    [[ "${MEMORY:-1Gi}" =~ ^[1-9][0-9]*(Mi|Gi)$ ]] || die "--memory is a size such as 6Gi or 6144Mi, not '$MEMORY'."
    if [ -n "$PORT" ]; then
        { [[ "$PORT" =~ ^[1-9][0-9]{0,4}$ ]] && [ "$PORT" -le 65535 ]; } ||
            die "--port is a number from 1 to 65535, not '$PORT'."
    fi
    [ -n "$NETWORK$STAGE_ONLY" ] || NETWORK=cvat_cvat
    [[ "${NETWORK:-none}" =~ ^[A-Za-z0-9._-]+$ ]] || die "'$NETWORK' is no name of a network."
    if [ -n "$IMAGE" ]; then
        [[ "$IMAGE" =~ ^[a-z0-9][A-Za-z0-9._/:@-]*$ ]] || die "'$IMAGE' is no name of an image."
        [ -z "$MODEL_GIVEN$CONFIG$TORCH_INDEX$PIP_INDEX" ] ||
            die "--image is built already: --model, --config, --torch-index and --pip-index do not go with it."
    fi
    check_store
    local value
    for value in "${CVAT_FUNCTIONS_REDIS_PASSWORD:-}" ${STORE[@]+"${STORE[@]}"} ${ENVIRONMENT[@]+"${ENVIRONMENT[@]}"}; do
        # It would end Nuclio's own quoting in the middle of its docker command.
        case "$value" in *\'*) die "Nuclio cannot hand on a value with a single quote in it." ;; esac
    done
    STAGE="${STAGE:-$HERE/out/function}"
    case "$STAGE" in /*) ;; *) STAGE="$PWD/$STAGE" ;; esac
}

# Where tracks are kept. With --stage nothing is assumed: Kubernetes and CVAT's own scripts have
# other names for it.
check_store() {
    local port=6379
    if [ "$KIND" = interactor ]; then
        [ -z "$REDIS_SECRET" ] || die "the interactor keeps nothing in a store: leave --redis-secret out."
        REDIS_HOST=""
        return
    fi
    REDIS_HOST="${CVAT_FUNCTIONS_REDIS_HOST-cvat_redis_ondisk}"
    [ -z "$STAGE_ONLY" ] || REDIS_HOST="${CVAT_FUNCTIONS_REDIS_HOST:-}"
    if [ -n "$REDIS_HOST" ]; then
        [ "$REDIS_HOST" != cvat_redis_ondisk ] || port=6666
        STORE=("CVAT_FUNCTIONS_REDIS_HOST=$REDIS_HOST" "CVAT_FUNCTIONS_REDIS_PORT=${CVAT_FUNCTIONS_REDIS_PORT:-$port}")
    fi
    if [ -n "$REDIS_SECRET" ]; then
        [ -n "$STAGE_ONLY" ] || die "--redis-secret is for Kubernetes, with --stage."
        [[ "$REDIS_SECRET" =~ ^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$ ]] || die "'$REDIS_SECRET' is no name of a secret."
        [ -n "$REDIS_HOST" ] || die "--redis-secret needs the store's address in CVAT_FUNCTIONS_REDIS_HOST."
    elif [ -n "$STAGE_ONLY" ] && [ -n "${CVAT_FUNCTIONS_REDIS_PASSWORD:-}" ]; then
        die "--stage writes no password into a file: use --redis-secret on Kubernetes, or 'nuctl deploy --env'."
    fi
}

python_is_new_enough() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

# What the function would refuse at its start is refused here, by the same code.
check_settings() {
    local settings=(SAM2_FUNCTION="$KIND" ${ENVIRONMENT[@]+"${ENVIRONMENT[@]}"} ${STORE[@]+"${STORE[@]}"}) sentence
    # The store of a staged copy may be named later.
    [ -z "$STAGE_ONLY" ] || [ -n "$REDIS_HOST" ] || settings+=(CVAT_FUNCTIONS_REDIS_HOST=later)
    if ! python_is_new_enough; then
        # Else the built image checks them, before it replaces what runs.
        [ -z "$STAGE_ONLY" ] ||
            printf 'warning: python3 is missing or older than 3.10: the settings were not checked.\n' >&2
        return 0
    fi
    sentence="$(cd "$HERE" && env -i PATH="$PATH" PYTHONDONTWRITEBYTECODE=1 "${settings[@]}" \
        python3 -m sam2_tracker.check_settings 2>&1)" || die "$sentence"
}

# ---------------------------------------------------------------------------------------------
# The clean copy: Nuclio copies a function's folder whole and knows no ignore file.

stage() {
    local entry sources=()
    check_stage
    check_sources
    [ ! -e "$STAGE" ] || run rm -rf "$STAGE"
    run mkdir -p "$STAGE/weights" || die "the folder '$STAGE' cannot be made; name another one with --stage."
    for entry in "${FILES[@]}"; do
        sources+=("$HERE/$entry")
    done
    run cp -R "${sources[@]}" "$STAGE"
    run find "$STAGE" -name __pycache__ -prune -exec rm -rf {} +
    stage_weights
    write_configs cat "with $MODEL_SETTINGS"
    # The pods of Kubernetes run as another user, who must be able to read it.
    run chmod -R a+rX "$STAGE"
}

# What makes the same image of the clean copy without nuctl.
docker_build() {
    local setting settings=() arguments=()
    read -ra settings <<<"$MODEL_SETTINGS"
    settings+=("SAM2_WEIGHTS_URL=$BUILD_URL" "TORCH_INDEX=$TORCH_INDEX" "PIP_INDEX_URL=$PIP_INDEX")
    for setting in "DEVICE=$DEVICE" "${settings[@]}"; do
        [ -z "${setting#*=}" ] || arguments+=(--build-arg "$setting")
    done
    quoted docker build --file "$HERE/Dockerfile" "${arguments[@]}" --tag "$(image_tag "function-$DEVICE.yaml")" "$STAGE"
}

# The configuration alone, for an image that is built already: with a build section Nuclio would
# build in spite of --run-image.
stage_config() {
    check_stage
    run mkdir -p "$STAGE" || die "the folder '$STAGE' cannot be made; name another one with --stage."
    MODEL_SETTINGS="" BUILD_URL=""
    write_configs without_build "without its build section"
}

# write_configs FILTER WORDS: the yamls, through write_config and the filter.
write_configs() {
    local config
    for config in "${CONFIGS[@]}"; do
        say "# $STAGE/$config, $2"
        [ -n "$DRY_RUN" ] || write_config "$HERE/$config" | "$1" >"$STAGE/$config"
    done
}

without_build() {
    awk '/^  build:/ { skip = 1; next } /^  [^ ]/ { skip = 0 } !skip { print }'
}

# What is written over must be ours, and not this repository itself.
check_stage() {
    local entry name
    [ -e "$STAGE" ] || return 0
    [ -d "$STAGE" ] || die "'$STAGE' is no folder."
    [ "$(cd "$STAGE" && pwd -P)" != "$(cd "$HERE" && pwd -P)" ] ||
        die "'$STAGE' is the repository itself; name another folder."
    for entry in "$STAGE"/* "$STAGE"/.[!.]*; do
        name="${entry##*/}"
        case " ${FILES[*]} ${CONFIGS[*]} weights * .[!.]* " in
        *" $name "*) ;;
        *) die "'$STAGE' holds '$name', which is not ours; name an empty folder." ;;
        esac
    done
}

# What is copied must not lie in the folder that is emptied first, however the path is spelled.
check_sources() {
    local file folder stage
    [ -d "$STAGE" ] || return 0
    stage="$(cd "$STAGE" && pwd -P)"
    for file in "$CONFIG" "$CHECKPOINT" "${SAM2_WEIGHTS_URL:-}"; do
        case "$file" in '' | http://* | https://*) continue ;; esac
        folder="$(cd "$(dirname "${file#file://}")" 2>/dev/null && pwd -P)" || continue
        case "$folder/" in
        "$stage"/*) die "'$file' lies in '$STAGE', which is emptied first; move it elsewhere." ;;
        esac
    done
}

stage_weights() {
    BUILD_URL=""
    if [ -n "$CHECKPOINT" ]; then
        run cp "$CONFIG" "$CHECKPOINT" "$STAGE/weights"
        MODEL_SETTINGS="SAM2_CONFIG=/opt/nuclio/weights/${CONFIG##*/}"
        MODEL_SETTINGS="$MODEL_SETTINGS SAM2_CHECKPOINT=/opt/nuclio/weights/${CHECKPOINT##*/}"
        return
    fi
    MODEL_SETTINGS="SAM2_MODEL=$MODEL"
    # The authors of EfficientTAM write 512x512 where the model's name has 512.
    local file="${MODEL/%_512/_512x512}.pt" source="" record
    record="$HERE/weights/$file.sha256"
    if [ -f "$HERE/weights/$file" ]; then
        source="$HERE/weights/$file"
    else
        case "${SAM2_WEIGHTS_URL:-}" in
        '') ;;
        http://* | https://*) BUILD_URL="$SAM2_WEIGHTS_URL" ;;
        *)
            source="${SAM2_WEIGHTS_URL#file://}"
            [ ! -d "$source" ] || source="$source/$file"
            [ -f "$source" ] || die "SAM2_WEIGHTS_URL leads to '$source', but there is no such file."
            ;;
        esac
    fi
    [ -z "$source" ] || run cp "$source" "$STAGE/weights/$file"
    # The checksums of all other models are in sam2_tracker/models.py.
    case "$MODEL" in sam2_* | efficienttam_*_[12])
        if [ -n "$SHA256" ]; then
            say "# $STAGE/weights/$file.sha256, with $SHA256"
            [ -n "$DRY_RUN" ] ||
                printf '%s  %s\n' "$(printf '%s' "$SHA256" | tr A-F a-f)" "$file" >"$STAGE/weights/$file.sha256"
        elif [ -f "$record" ]; then
            run cp "$record" "$STAGE/weights"
        elif [[ "$MODEL" == sam2_* ]]; then
            die "no checksum of $file is known here; give the one that you trust with --sha256."
        fi
        ;;
    esac
}

# One of our yamls with the options written into it. Port and store are those of the function that is
# deployed.
write_config() {
    local setting settings=(${ENVIRONMENT[@]+"${ENVIRONMENT[@]}"}) port="$PORT" secret="$REDIS_SECRET" kind=tracker
    case "${1##*/}" in function-interactor*) kind=interactor ;; esac
    [ "$kind" = "$KIND" ] || port="" secret=""
    [ "$kind$KIND" != trackertracker ] || settings+=(${STORE[@]+"${STORE[@]}"})
    MODEL_SETTINGS="$MODEL_SETTINGS" BUILD_URL="$BUILD_URL" TORCH_INDEX="$TORCH_INDEX" \
        PIP_INDEX="$PIP_INDEX" WORKERS="$WORKERS" MEMORY="$MEMORY" PORT="$port" NETWORK="$NETWORK" \
        TAG="$(image_tag "$1")" awk '
        /^ +value: SAM2_MODEL=/ {
            print "          value: " ENVIRON["MODEL_SETTINGS"]
            if (ENVIRON["BUILD_URL"] != "") {
                print "        - kind: ARG"
                print "          value: SAM2_WEIGHTS_URL=" ENVIRON["BUILD_URL"]
            }
            next
        }
        /^ +value: pip install -r requirements-torch.txt/ && ENVIRON["TORCH_INDEX"] != "" {
            print "          value: pip install -r requirements-torch.txt --index-url " ENVIRON["TORCH_INDEX"]
            next
        }
        /^    image: / { print "    image: " ENVIRON["TAG"]; next }
        /^        port: / && ENVIRON["PORT"] != "" { print "        port: " ENVIRON["PORT"]; next }
        /^  resources:/ { resources = 1 }
        /^  platform:/ && ENVIRON["MEMORY"] != "" && !resources {
            print "  resources:\n    limits:\n      memory: " ENVIRON["MEMORY"] "\n"
        }
        { sub(/numWorkers: 1/, "numWorkers: " ENVIRON["WORKERS"]); print }
        /^ +value: PIP_NO_CACHE_DIR=1/ && ENVIRON["PIP_INDEX"] != "" {
            print "        - kind: ARG\n          value: PIP_INDEX_URL=" ENVIRON["PIP_INDEX"]
        }
        /^    limits:/ && ENVIRON["MEMORY"] != "" { print "      memory: " ENVIRON["MEMORY"] }
        /^    attributes:/ && ENVIRON["NETWORK"] != "" { print "      network: " ENVIRON["NETWORK"] }' "$1"
    # The interactor's yamls end with settings of their own.
    [ -z "${settings[*]-}$secret" ] || [ "$kind" = interactor ] || printf '\n  env:\n'
    for setting in ${settings[@]+"${settings[@]}"}; do
        printf "    - name: %s\n      value: '%s'\n" "${setting%%=*}" "${setting#*=}"
    done
    [ -z "$secret" ] || printf "    - name: CVAT_FUNCTIONS_REDIS_PASSWORD
      valueFrom:
        secretKeyRef:
          name: %s
          key: password\n" "$secret"
}

# image_tag YAML: the image's name with our version and the model, so that an older one can be run.
image_tag() {
    local version model="$MODEL"
    version="$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$HERE/main.py")"
    if [ -n "$CHECKPOINT" ]; then
        model="${CHECKPOINT##*/}"
        model="$(printf '%s' "${model%.*}" | tr -c 'A-Za-z0-9_.-' _)"
    fi
    case "$1" in *-gpu.yaml) model="$model-gpu" ;; esac
    printf '%s:%s-%s' "$IMAGE_NAME" "$version" "$model"
}

# ---------------------------------------------------------------------------------------------
# Preflight: each finding is one sentence that says what is missing and what to do.

finding() {
    FINDINGS+=("$*")
}

preflight() {
    FINDINGS=()
    if ! command -v docker >/dev/null; then
        finding "docker is not installed; see https://docs.docker.com/engine/install/."
    elif ! docker info >/dev/null 2>&1; then
        finding "docker does not answer; start it, or let this user use it (group docker)."
    else
        preflight_cvat
        [ "$DEVICE" = cpu ] || preflight_gpu
        [ -n "$IMAGE" ] || preflight_disk
        preflight_port
    fi
    preflight_nuctl

    [ ${#FINDINGS[@]} -gt 0 ] || return 0
    local text label=error
    [ -z "$DRY_RUN$FORCE" ] || label=warning
    for text in "${FINDINGS[@]}"; do
        printf '%s: %s\n' "$label" "$text" >&2
    done
    [ "$label" = warning ] || die "nothing was changed; --force deploys in spite of this."
}

preflight_cvat() {
    local host start="in CVAT's folder, with the CVAT_HOST, CVAT_VERSION and -f files that CVAT was started with (docker-compose.override.yml too, if it is used):"
    host="$(cvat_host)" || true
    [ "${host:-localhost}" = localhost ] || start="$start CVAT_HOST=$host"
    start="$start docker compose -f docker-compose.yml -f components/serverless/docker-compose.serverless.yml up -d"
    if ! docker network inspect "$NETWORK" >/dev/null 2>&1; then
        finding "there is no Docker network $NETWORK; start CVAT, or name its network with --network."
    fi
    if [ -z "$(dashboard_version)" ]; then
        finding "CVAT runs without Nuclio's dashboard; $start"
    elif ! [[ "$(docker inspect --format '{{.Config.Env}}' cvat_server 2>/dev/null)" == *CVAT_SERVERLESS=1* ]]; then
        finding "cvat_server runs without the serverless compose file and shows no AI tools; $start"
    fi
    if [ "$REDIS_HOST" = cvat_redis_ondisk ] &&
        [ "$(docker inspect --format '{{.State.Running}}' cvat_redis_ondisk 2>/dev/null)" != true ]; then
        finding "cvat_redis_ondisk does not run; start CVAT, or name another Redis with CVAT_FUNCTIONS_REDIS_HOST."
    fi
}

# The host at which CVAT is reached now. Without CVAT_HOST compose would make it localhost.
cvat_host() {
    docker inspect --format '{{index .Config.Labels "traefik.http.routers.cvat.rule"}}' cvat_server 2>/dev/null |
        sed -n 's/^Host(.\([A-Za-z0-9.-]*\).).*/\1/p'
}

dashboard_version() {
    docker ps --format '{{.Image}}' 2>/dev/null | sed -n 's|.*nuclio/dashboard:\([0-9][0-9.]*\).*|\1|p' | head -n 1
}

# Docker gives a port that nobody names anew at every start, and CVAT keeps the old one.
preflight_port() {
    local own port
    PUBLISHED_PORTS="$(docker ps --format '{{.Ports}}' 2>/dev/null)" || true
    own="$(docker inspect --format '{{json .HostConfig.PortBindings}}' "$CONTAINER" 2>/dev/null |
        sed -n 's/.*"8080\/tcp":\[{[^}]*"HostPort":"\([1-9][0-9]*\)".*/\1/p')" || true
    if [ -n "$PORT" ]; then
        [ "$PORT" = "$own" ] || port_is_free "$PORT" ||
            finding "port $PORT of this machine is taken; name another one with --port."
        return
    fi
    if [ -n "$own" ]; then
        PORT="$own"
        return
    fi
    for ((port = DEFAULT_PORT; port < DEFAULT_PORT + PORTS; port++)); do
        if port_is_free "$port"; then
            PORT="$port"
            return
        fi
    done
    finding "the ports $DEFAULT_PORT to $((DEFAULT_PORT + PORTS - 1)) are all taken; name a free one with --port."
}

port_is_free() {
    case "$PUBLISHED_PORTS" in *":$1->"*) return 1 ;; esac
    ! (exec 3<"$LISTENERS/$1") 2>/dev/null
}

preflight_nuctl() {
    local dashboard nuctl releases=https://github.com/nuclio/nuclio/releases
    dashboard="$(dashboard_version)" || true
    if ! command -v nuctl >/dev/null; then
        finding "nuctl is not installed; get ${dashboard:+version }${dashboard:-the version of the dashboard} from $releases."
        return
    fi
    nuctl="$(nuctl version 2>/dev/null | sed -n 's/.*Label:[ "]*\([0-9][0-9.]*\).*/\1/p')" || true
    if [ -n "$dashboard" ] && [ "$nuctl" != "$dashboard" ]; then
        finding "nuctl is version ${nuctl:-unknown}, CVAT's dashboard is $dashboard; get nuctl $dashboard from $releases."
    fi
}

preflight_gpu() {
    local driver
    case "$(docker info --format '{{json .Runtimes}}' 2>/dev/null)" in
    *nvidia*) ;;
    *)
        command -v nvidia-container-runtime-hook >/dev/null ||
            finding "docker knows no NVIDIA runtime; install the NVIDIA Container Toolkit, then: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
        ;;
    esac
    if ! command -v nvidia-smi >/dev/null; then
        finding "nvidia-smi is not here: install the NVIDIA driver, version $GPU_DRIVER or newer."
        return
    fi
    driver="$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)" || true
    if ! [[ "$driver" =~ ^[0-9]+ ]]; then
        finding "nvidia-smi shows no GPU; see what it says."
    elif [ "${driver%%.*}" -lt "$GPU_DRIVER" ] && [ -z "$TORCH_INDEX$IMAGE" ]; then
        finding "the NVIDIA driver is $driver, torch needs $GPU_DRIVER or newer; update it, or name an older CUDA with --torch-index https://download.pytorch.org/whl/cu126."
    fi
}

preflight_disk() {
    local root free need=$CPU_DISK_GIB
    [ "$DEVICE" = cpu ] || need=$GPU_DISK_GIB
    root="$(docker info --format '{{.DockerRootDir}}' 2>/dev/null)" || return 0
    [ -d "$root" ] || return 0 # docker runs on another machine or in a virtual one
    free="$(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1048576) }')"
    if [ "$free" -lt "$need" ]; then
        finding "$root has $free GiB left, the build needs $need; 'docker system df' shows what takes the room."
    fi
}

# ---------------------------------------------------------------------------------------------

deploy() {
    local config=function password=()
    [ "$KIND" = tracker ] || config="$config-$KIND"
    [ "$DEVICE" = cpu ] || config="$config-gpu"
    config="$config.yaml"
    [ -z "$REDIS_HOST" ] || [ -z "${CVAT_FUNCTIONS_REDIS_PASSWORD:-}" ] || # not written into a file
        password=(--env "CVAT_FUNCTIONS_REDIS_PASSWORD=$CVAT_FUNCTIONS_REDIS_PASSWORD")
    if [ -n "$DRY_RUN" ] || ! nuctl get project cvat --platform local >/dev/null 2>&1; then
        run nuctl create project cvat --platform local ||
            die "nuctl could not create the project cvat; docs/deploy.md has a table of causes and cures."
    fi
    if [ -z "$IMAGE" ]; then
        stage
        IMAGE="$(image_tag "$config")"
        run nuctl build "$FUNCTION" --platform local --path "$STAGE" --file "$STAGE/$config" ||
            die "nuctl could not build the image; what runs was not touched. docs/deploy.md has a table of causes and cures."
    else
        pull_image
    fi
    stage_config
    check_settings_in_image
    OLD=""
    [ -n "$DRY_RUN" ] || OLD="$(docker inspect --format '{{.Id}}' "$CONTAINER" 2>/dev/null)" || true
    if [ -n "$OLD" ] && ask_function >/dev/null; then
        mark_answered
    fi
    [ "$IMAGE" = "$ROLLBACK" ] || keep_previous
    trap 'not_deployed "the deployment was interrupted."' INT TERM HUP PIPE
    if [ -z "$DRY_RUN" ] && remove_unfinished; then
        OLD=""
    fi
    # nuctl would kill what runs; so what is being tracked is still answered.
    if [ -n "$DRY_RUN$OLD" ]; then
        run docker stop -t "$STOP_SECONDS" "$CONTAINER" || true
    fi
    run nuctl deploy "$FUNCTION" --project-name cvat --platform local --file "$STAGE/$config" \
        --run-image "$IMAGE" ${password[@]+"${password[@]}"} ||
        not_deployed "nuctl could not deploy the function; docs/deploy.md has a table of causes and cures."
    trap - INT TERM HUP PIPE
}

# Where nuctl is interrupted, Nuclio's record of the function stays unfinished: it has no port for CVAT,
# and nuctl refuses to deploy or delete the function. This removes the function, container and record,
# and fails where there is no such record. In the states that are named here nuctl refuses nothing.
remove_unfinished() {
    local state
    state="$(nuctl get function "$FUNCTION" --platform local --output json 2>/dev/null |
        sed -n 's/^[[:space:]]*"state": *"\([A-Za-z]*\)".*/\1/p' | head -n 1)" || true
    case "$state" in '' | ready | error | unhealthy | imported | scaledToZero) return 1 ;; esac
    printf 'warning: an earlier deployment of the function was interrupted; what it left is removed.\n' >&2
    run nuctl delete function "$FUNCTION" --platform local --force || true
}

# not_deployed WHY: ends the script after what ran was stopped, and says what runs now.
not_deployed() {
    local now=""
    trap '' INT TERM HUP PIPE
    # By its id, for Nuclio removes the old container before it starts a new one of the same name.
    # Unlike start, restart waits for a stop that goes on behind an interrupted command.
    if ! remove_unfinished >/dev/null 2>&1 && [ -n "$OLD" ] &&
        docker restart -t "$STOP_SECONDS" "$OLD" >/dev/null 2>&1; then
        now=" What ran before runs again."
    elif [ -n "$OLD" ]; then
        now=" What ran before is gone, so CVAT's users get errors now.$(way_back)"
    fi
    die "$1$now"
}

way_back() {
    ! image_id "$PREVIOUS" >/dev/null || printf ' Back to the last image that answered: %s' "$(rollback_command)"
}

# With the script that fits the image: the one for a GPU does not start without it.
rollback_command() {
    local option=""
    [ "$KIND" = tracker ] || option=" --$KIND"
    printf './deploy_%s.sh%s --rollback' "$(image_device "$PREVIOUS")" "$option"
}

pull_image() {
    if [ "$IMAGE" = "$PREVIOUS" ]; then
        [ -n "$DRY_RUN" ] || docker image inspect "$IMAGE" >/dev/null 2>&1 ||
            die "no image from before the last upgrade is on this machine."
        [ -n "$DRY_RUN" ] || [ "$(image_device "$IMAGE")" = "$DEVICE" ] ||
            die "the image from before the last upgrade is for another device: $(rollback_command)"
        # Its own name goes to the image that runs now, once this one answers.
        IMAGE="$ROLLBACK"
        run docker tag "$PREVIOUS" "$IMAGE"
    elif [ -n "$DRY_RUN" ] || ! docker image inspect "$IMAGE" >/dev/null 2>&1; then
        run docker pull "$IMAGE" ||
            die "the image $IMAGE is not on this machine and cannot be pulled; 'docker login' to its registry, or 'docker load' it."
    fi
}

# Where this machine's python3 could not check them.
check_settings_in_image() {
    local setting options=()
    ! python_is_new_enough || return 0
    for setting in "SAM2_FUNCTION=$KIND" ${ENVIRONMENT[@]+"${ENVIRONMENT[@]}"} ${STORE[@]+"${STORE[@]}"}; do
        options+=(--env "$setting")
    done
    run docker run --rm "${options[@]}" "$IMAGE" python -m sam2_tracker.check_settings ||
        die "the settings are refused; what runs was not touched."
}

image_id() {
    docker image inspect --format '{{.Id}}' "$1" 2>/dev/null
}

# cpu or gpu: what the image was built for.
image_device() {
    case "$(docker image inspect --format '{{.Config.Env}}' "$1")" in
    *SAM2_DEVICE=cuda*) printf gpu ;;
    *) printf cpu ;;
    esac
}

# What runs now is an image that answered.
mark_answered() {
    run docker tag "$(docker inspect --format '{{.Image}}' "$CONTAINER")" "$ANSWERED" || warn_no_rollback
}

# --rollback brings back what answered last, also where an upgrade has the same version and model.
keep_previous() {
    local answered
    [ -z "$DRY_RUN" ] || return 0
    answered="$(image_id "$ANSWERED")" || return 0
    [ "$answered" = "$(image_id "$IMAGE")" ] || run docker tag "$answered" "$PREVIOUS" || warn_no_rollback
}

warn_no_rollback() {
    printf 'warning: there will be no --rollback to the image that runs now.\n' >&2
}

# What the function says about itself.
ask_function() {
    docker exec "$CONTAINER" python -c "$ASK" 2>/dev/null
}

# Waits until the function answers, and prints what it says about itself.
wait_until_ready() {
    local end=$((SECONDS + READY_SECONDS)) answer port
    if [ -n "$DRY_RUN" ]; then
        run docker exec "$CONTAINER" python -c "$ASK"
        return
    fi
    printf 'Waiting for the function ...\n'
    until answer="$(ask_function)"; do
        if [ "$SECONDS" -ge "$end" ]; then
            docker logs --tail 20 "$CONTAINER" >&2 || true
            die "the function does not answer after $READY_SECONDS s; the end of its log is above.$(way_back)"
        fi
        sleep 2
    done
    # After an upgrade this was done before it.
    [ "$IMAGE" != "$ROLLBACK" ] || keep_previous
    mark_answered
    port="$(docker port "$CONTAINER" 8080/tcp 2>/dev/null | sed -n 's/.*:\([0-9]*\)$/\1/p' | head -n 1)" || true
    printf 'It runs on port %s: %s\n' "${port:-unknown}" "$answer"
    if [ "$KIND" = interactor ]; then
        printf '\nNext: in CVAT open a job, AI Tools, Interactors, "Segment Anything 2: Interactor".\n'
        return
    fi
    case "$answer" in *'"answers": false'*)
        printf 'warning: its store does not answer; until it does, requests get 503. Check CVAT_FUNCTIONS_REDIS_HOST.\n' >&2
        ;;
    esac
    cat <<NEXT

Next: CVAT lists "Segment Anything 2: Tracker" on its page Models. Track with it
  - from the command line over a range of frames, after 'make setup': .venv/bin/python -m cvat_action --help
  - in CVAT's page, with the plugin: docs/ui-plugin.md
  - in the stock Trackers tab of the AI tools, rectangles only, frame by frame.
Its log:  docker logs -f $CONTAINER
Is it ready (200) or not (503, and why): curl -i http://localhost:${port:-PORT}/ready
NEXT
}

mention_faster_model() {
    [ "$DEVICE$MODEL_GIVEN$CONFIG$IMAGE" = cpu ] || return 0
    echo "The model is $MODEL. On a CPU, --model efficienttam_ti_512 takes a twelfth of its operations, for" \
        "coarser outlines (README.md, \"Which model\")."
}

main() {
    DEVICE="$1"
    shift
    parse_options "$@"
    check_settings
    if [ -n "$STAGE_ONLY" ]; then
        if [ -n "$IMAGE" ]; then
            stage_config
        else
            stage
            printf '\nTo build its image without nuctl:\n%s\n' "$(docker_build)"
        fi
        return
    fi
    mention_faster_model
    preflight
    deploy
    wait_until_ready
}
