# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What deploy_cpu.sh and deploy_gpu.sh share. Runs on the bash 3.2 of macOS too.

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
FUNCTION=pth-facebookresearch-sam2-tracker
CONTAINER="nuclio-nuclio-$FUNCTION"

# What ships: these files and the whole package, beside the two function yamls and weights/.
FILES=(
    LICENSE main.py tracker.py model_handler.py tracker_state.py sam2_tracker
    requirements.txt requirements-torch.txt requirements-sam2.txt
)
CONFIGS=(function.yaml function-gpu.yaml)

READY_SECONDS=120
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
  --workers N            processes, each with its own copy of the model (default: 1)
  --env NAME=VALUE       a setting of the function (README, "Settings"); may be repeated
  --network NAME         CVAT's Docker network (default: cvat_cvat)
  --torch-index URL      another package index for torch, e.g. for an older NVIDIA driver
  --image IMAGE          run this image, which is on this machine already; build nothing
  --stage DIR            only make the clean copy of the function in DIR
  --force                deploy in spite of what the preflight checks find
  --dry-run              print the commands, run none
  -h, --help

Environment:
  CVAT_FUNCTIONS_REDIS_HOST, CVAT_FUNCTIONS_REDIS_PORT, CVAT_FUNCTIONS_REDIS_PASSWORD
                         where the function keeps its tracks
                         (default: CVAT's own cvat_redis_ondisk, port 6666)
  SAM2_WEIGHTS_URL       mirror, folder or file to take the checkpoint from;
                         a file in weights/ beside this script is taken first
USAGE
}

die() {
    printf '%s\n' "deploy_$DEVICE.sh: $*" >&2
    exit 1
}

# Prints a command so that it can be pasted, without the password; runs it unless --dry-run.
run() {
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
    say "${line# }"
    [ -n "$DRY_RUN" ] || "$@"
}

say() {
    [ -n "$DRY_RUN" ] || printf '+ '
    printf '%s\n' "$*"
}

parse_options() {
    MODEL=sam2.1_hiera_tiny MODEL_GIVEN="" SHA256="" CONFIG="" CHECKPOINT="" NETWORK=cvat_cvat TORCH_INDEX=""
    IMAGE="" WORKERS=1 STAGE="" STAGE_ONLY="" FORCE="" DRY_RUN="" ENVIRONMENT=()
    while [ $# -gt 0 ]; do
        case "$1" in
        --model | --sha256 | --config | --checkpoint | --env | --network | --torch-index | --image | --workers | --stage)
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
        --image) IMAGE="$2" ;;
        --workers) WORKERS="$2" ;;
        --stage) STAGE="$2" STAGE_ONLY=1 ;;
        --env)
            [[ "$2" =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || die "--env is NAME=VALUE, not '$2'."
            case "$2" in
            SAM2_MODEL=* | SAM2_CONFIG=* | SAM2_CHECKPOINT=*)
                die "the image holds one model's file; choose it with --model, or --config and --checkpoint."
                ;;
            esac
            ENVIRONMENT+=(--env "$2")
            ;;
        --force | --dry-run)
            [ "$1" = --force ] && FORCE=1 || DRY_RUN=1
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

check_options() {
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
    for url in "$TORCH_INDEX" "${SAM2_WEIGHTS_URL:-}"; do
        case "$url" in http://* | https://*)
            [[ "$url" =~ $plain ]] || die "'$url' is no plain URL."
            ;;
        esac
    done
    case "$TORCH_INDEX" in '' | http://* | https://*) ;; *) die "--torch-index is a URL." ;; esac
    [[ "$WORKERS" =~ ^[1-9][0-9]?$ ]] || die "--workers is a number from 1 to 99, not '$WORKERS'."
    [ "$WORKERS" = 1 ] || ENVIRONMENT+=(--env "SAM2_WORKERS=$WORKERS")
    [[ "$NETWORK" =~ ^[A-Za-z0-9._-]+$ ]] || die "'$NETWORK' is no name of a network."
    if [ -n "$IMAGE" ] && [ -n "$MODEL_GIVEN$CONFIG$TORCH_INDEX$STAGE_ONLY" ]; then
        die "--image is built already: --model, --config, --torch-index and --stage do not go with it."
    fi
    local value
    for value in "${CVAT_FUNCTIONS_REDIS_PASSWORD:-}" ${ENVIRONMENT[@]+"${ENVIRONMENT[@]}"}; do
        # It would end Nuclio's own quoting in the middle of its docker command.
        case "$value" in *\'*) die "Nuclio cannot hand on a value with a single quote in it." ;; esac
    done
    STAGE="${STAGE:-$HERE/out/function}"
    case "$STAGE" in /*) ;; *) STAGE="$PWD/$STAGE" ;; esac
}

# ---------------------------------------------------------------------------------------------
# The clean copy: Nuclio copies a function's folder whole and knows no ignore file.

stage() {
    local entry name
    if [ -e "$STAGE" ]; then
        [ -d "$STAGE" ] || die "'$STAGE' is no folder."
        for entry in "$STAGE"/* "$STAGE"/.[!.]*; do
            name="${entry##*/}"
            case " ${FILES[*]} ${CONFIGS[*]} weights * .[!.]* " in
            *" $name "*) ;;
            *) die "'$STAGE' holds '$name', which is not ours; name an empty folder." ;;
            esac
        done
        check_sources
        run rm -rf "$STAGE"
    fi
    run mkdir -p "$STAGE/weights"
    run cp -R "${FILES[@]/#/$HERE/}" "$STAGE"
    run find "$STAGE" -name __pycache__ -prune -exec rm -rf {} +
    stage_weights
    local config
    for config in "${CONFIGS[@]}"; do
        say "# $STAGE/$config, with $MODEL_SETTINGS"
        [ -n "$DRY_RUN" ] || write_config "$HERE/$config" >"$STAGE/$config"
    done
}

# What is copied must not lie in the folder that is emptied first, however the path is spelled.
check_sources() {
    local file folder stage
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

write_config() {
    MODEL_SETTINGS="$MODEL_SETTINGS" BUILD_URL="$BUILD_URL" TORCH_INDEX="$TORCH_INDEX" \
        WORKERS="$WORKERS" awk '
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
        { sub(/numWorkers: 1/, "numWorkers: " ENVIRON["WORKERS"]); print }' "$1"
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
        if [ -n "$IMAGE" ] && ! docker image inspect "$IMAGE" >/dev/null 2>&1; then
            finding "the image $IMAGE is not on this machine; load it with 'docker load'."
        fi
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
    local compose='docker compose -f docker-compose.yml -f components/serverless/docker-compose.serverless.yml up -d'
    if ! docker network inspect "$NETWORK" >/dev/null 2>&1; then
        finding "there is no Docker network $NETWORK; start CVAT, or name its network with --network."
    fi
    if [ -z "$(dashboard_version)" ]; then
        finding "CVAT runs without Nuclio's dashboard; in CVAT's folder: $compose"
    elif ! [[ "$(docker inspect --format '{{.Config.Env}}' cvat_server 2>/dev/null)" == *CVAT_SERVERLESS=1* ]]; then
        finding "cvat_server runs without the serverless compose file and shows no AI tools; in CVAT's folder: $compose"
    fi
    if [ "$REDIS_HOST" = cvat_redis_ondisk ] &&
        [ "$(docker inspect --format '{{.State.Running}}' cvat_redis_ondisk 2>/dev/null)" != true ]; then
        finding "cvat_redis_ondisk does not run; start CVAT, or name another Redis with CVAT_FUNCTIONS_REDIS_HOST."
    fi
}

dashboard_version() {
    docker ps --format '{{.Image}}' 2>/dev/null | sed -n 's|.*nuclio/dashboard:\([0-9][0-9.]*\).*|\1|p' | head -n 1
}

preflight_nuctl() {
    local dashboard nuctl releases=https://github.com/nuclio/nuclio/releases
    dashboard="$(dashboard_version)" || true
    if ! command -v nuctl >/dev/null; then
        finding "nuctl is not installed; get version ${dashboard:-of the dashboard} from $releases."
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
    local config=function.yaml source=()
    [ "$DEVICE" = cpu ] || config=function-gpu.yaml
    source=(--path "$STAGE" --file "$STAGE/$config")
    if [ -n "$IMAGE" ]; then
        # With a build section Nuclio would build in spite of --run-image.
        source=(--file "$STAGE/$config" --run-image "$IMAGE")
        MODEL_SETTINGS="" BUILD_URL=""
        run mkdir -p "$STAGE"
        say "# $STAGE/$config, without its build section"
        [ -n "$DRY_RUN" ] || write_config "$HERE/$config" | without_build >"$STAGE/$config"
    else
        stage
    fi
    if [ -n "$DRY_RUN" ] || ! nuctl get project cvat --platform local >/dev/null 2>&1; then
        run nuctl create project cvat --platform local
    fi
    run nuctl deploy "$FUNCTION" --project-name cvat --platform local "${source[@]}" \
        ${REDIS[@]+"${REDIS[@]}"} ${ENVIRONMENT[@]+"${ENVIRONMENT[@]}"} \
        --platform-config "{\"attributes\": {\"network\": \"$NETWORK\"}}" ||
        die "nuctl could not deploy the function; docs/deploy.md has a table of causes and cures."
}

without_build() {
    awk '/^  build:/ { skip = 1; next } /^  [^ ]/ { skip = 0 } !skip { print }'
}

# Waits until the function answers, and prints what it says about itself.
wait_until_ready() {
    local ask='import urllib.request as u; print(u.urlopen("http://127.0.0.1:8080/", timeout=20).read().decode())'
    local end=$((SECONDS + READY_SECONDS)) answer
    if [ -n "$DRY_RUN" ]; then
        run docker exec "$CONTAINER" python -c "$ask"
        return
    fi
    printf 'Waiting for the function ...\n'
    until answer="$(docker exec "$CONTAINER" python -c "$ask" 2>/dev/null)"; do
        if [ "$SECONDS" -ge "$end" ]; then
            docker logs --tail 20 "$CONTAINER" >&2 || true
            die "the function does not answer after $READY_SECONDS s; the end of its log is above."
        fi
        sleep 2
    done
    printf 'It runs: %s\n' "$answer"
}

next_steps() {
    cat <<NEXT

Next: CVAT lists "Segment Anything 2: Tracker" on its page Models. Track with it
  - from the command line over a range of frames, after 'make setup': .venv/bin/python -m cvat_action --help
  - in CVAT's page, with the plugin: docs/ui-plugin.md
  - in the stock Trackers tab of the AI tools, rectangles only, frame by frame.
Its log: docker logs -f $CONTAINER
NEXT
}

mention_faster_model() {
    [ "$DEVICE$MODEL_GIVEN$CONFIG$IMAGE" = cpu ] || return 0
    echo "The model is $MODEL. On a CPU, --model efficienttam_ti_512 takes about a tenth of its time" \
        "(README.md, \"Which model\")."
}

main() {
    DEVICE="$1"
    shift
    parse_options "$@"
    REDIS_HOST="${CVAT_FUNCTIONS_REDIS_HOST-cvat_redis_ondisk}" REDIS=()
    if [ -n "$REDIS_HOST" ]; then
        local port=6379
        [ "$REDIS_HOST" != cvat_redis_ondisk ] || port=6666
        REDIS=(--env "CVAT_FUNCTIONS_REDIS_HOST=$REDIS_HOST")
        REDIS+=(--env "CVAT_FUNCTIONS_REDIS_PORT=${CVAT_FUNCTIONS_REDIS_PORT:-$port}")
        [ -z "${CVAT_FUNCTIONS_REDIS_PASSWORD:-}" ] ||
            REDIS+=(--env "CVAT_FUNCTIONS_REDIS_PASSWORD=$CVAT_FUNCTIONS_REDIS_PASSWORD")
    fi
    if [ -n "$STAGE_ONLY" ]; then
        stage
        return
    fi
    mention_faster_model
    preflight
    deploy
    wait_until_ready
    next_steps
}
