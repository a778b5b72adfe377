# SPDX-License-Identifier: MIT
# The ready-made image of the function: what `nuctl build` makes of function.yaml (DEVICE=cpu) or of
# function-gpu.yaml (DEVICE=gpu), built without nuctl. A test holds the three equal. The context is
# the clean copy, never this repository:
#
#   ./deploy_cpu.sh --stage out/function
#   docker build --file Dockerfile --tag NAME out/function
#
# deploy_cpu.sh prints the second line with the arguments that fit its options.
#
# One image holds one model, checked by its SHA-256: it starts without a network, never changes, and
# the way back to an older one is its name. The layers up to the code are the same for all models.
ARG DEVICE=cpu
# The Nuclio whose processor is inside: the one of CVAT 2.73. Take that of your dashboard.
ARG NUCLIO_LABEL=1.16.3
ARG NUCLIO_ARCH=amd64

FROM quay.io/nuclio/handler-builder-python-onbuild:${NUCLIO_LABEL}-${NUCLIO_ARCH} AS processor
FROM quay.io/nuclio/uhttpc:0.0.1-${NUCLIO_ARCH} AS uhttpc

FROM python:3.11-slim-bookworm AS pins
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Another package index than PyPI; pip reads it.
ARG PIP_INDEX_URL
WORKDIR /opt/nuclio
COPY requirements-torch.txt requirements.txt requirements-sam2.txt ./

FROM pins AS torch-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install -r requirements-torch.txt --index-url ${TORCH_INDEX}

FROM pins AS torch-gpu
ENV NVIDIA_VISIBLE_DEVICES=all
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Without a GPU the start fails, instead of going on far slower on the CPU.
ENV SAM2_DEVICE=cuda
ARG TORCH_INDEX
RUN pip install -r requirements-torch.txt ${TORCH_INDEX:+--index-url $TORCH_INDEX}

FROM torch-${DEVICE}
RUN pip install -r requirements.txt
RUN SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation -r requirements-sam2.txt

# Nuclio's own part: its processor, its wrapper of Python functions, and what that needs.
COPY --from=processor /home/nuclio/bin/processor /usr/local/bin/processor
COPY --from=processor /home/nuclio/bin/py /opt/nuclio/
COPY --from=processor /home/nuclio/bin/py3.11-whl /opt/nuclio/whl
COPY --from=uhttpc /home/nuclio/bin/uhttpc /usr/local/bin/uhttpc
RUN pip install nuclio-sdk msgpack --no-index --find-links /opt/nuclio/whl
HEALTHCHECK --interval=1s --timeout=3s CMD /usr/local/bin/uhttpc --url http://127.0.0.1:8082/ready || exit 1
CMD [ "processor" ]

COPY . /opt/nuclio
ARG SAM2_MODEL=sam2.1_hiera_tiny
# One's own files in weights/ instead of a model.
ARG SAM2_CONFIG
ARG SAM2_CHECKPOINT
ARG SAM2_WEIGHTS_URL
ENV SAM2_MODEL=${SAM2_MODEL} SAM2_CONFIG=${SAM2_CONFIG} SAM2_CHECKPOINT=${SAM2_CHECKPOINT}
# Takes the file from weights/ where it lies there, else downloads it; checks its SHA-256.
RUN python -m sam2_tracker.download
