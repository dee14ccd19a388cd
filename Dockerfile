# syntax=docker/dockerfile:1
# One image for every job and every engine; docs/image.md tells how it is built, tested and sized.
#
#   make image                            with docker, podman or buildah, whichever is at hand
#   docker build -t inkbatch .            the same by hand
#
# BASE_IMAGE   any Debian-like image with Python 3.11 to 3.14 as python3; release builds name it by digest.
# BUILD_IMAGE  the same Python at the same path, with venv and pip; only the build stages see it.
# TORCH_FLAVOUR  locked: the CUDA 13 wheels of requirements/runtime.lock (driver 580 or newer); cu126, cpu, …: needs
#                requirements/runtime-FLAVOUR.lock (make lock-flavour FLAVOUR=cu126). They also run without any GPU.
# Secret `ca`  (optional) certificates of a proxy between the build and the package index; it leaves no trace.

ARG BASE_IMAGE=python:3.12-slim-bookworm
ARG BUILD_IMAGE=${BASE_IMAGE}

# ---- tools of the build: uv and the build back-end, locked by hash ---------------------------------------------------
FROM ${BUILD_IMAGE} AS tools
WORKDIR /build
COPY requirements/build.lock ./
RUN --mount=type=secret,id=ca,required=false \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv venv && \
    venv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r build.lock
# Old buildah lends out only a stage that the same build made: this one is made anew whenever its borrower is.
ARG TORCH_FLAVOUR=locked
ARG MADE_FOR=any
COPY requirements/runtime*.lock ./
RUN echo "${TORCH_FLAVOUR} ${MADE_FOR}" > made-for

# ---- the package: megabytes, built anew with each change of the code ------------------------------------------------
FROM tools AS package
COPY pyproject.toml README.md LICENSE ./
COPY jobs jobs
COPY inkbatch inkbatch
# The empty environment lends its path: what is installed beside it is copied into the real one below.
RUN venv/bin/python -m hatchling build --target wheel && \
    venv/bin/uv venv --quiet --python "$(command -v python3)" /opt/inkbatch && \
    UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH VIRTUAL_ENV=/opt/inkbatch \
    venv/bin/uv pip install --quiet --no-deps --no-index --prefix /opt/package dist/*.whl

# ---- what ships -----------------------------------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS runtime
# tini is the init: it hands SIGTERM on to the job from the first moment, and reaps what the job leaves behind.
RUN apt-get update -qq && \
    apt-get install -y -qq --no-install-recommends ca-certificates tini > /dev/null && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /usr/local/bin/pip* \
      /usr/local/lib/python3*/site-packages/pip /usr/local/lib/python3*/site-packages/pip-* \
      /usr/local/lib/python3*/ensurepip && \
    groupadd --gid 1000 inkbatch && useradd --uid 1000 --gid 1000 --no-create-home inkbatch && \
    mkdir -p /data /scratch && chown 1000:1000 /data /scratch && chmod 1777 /scratch

# Gigabytes of dependencies, in one layer that is made anew only when the lock changes. uv is lent by the tools stage
# and does not stay; neither do the tests and C++ headers of the packages.
ARG TORCH_FLAVOUR=locked
COPY requirements/runtime*.lock /usr/share/inkbatch/
RUN --mount=type=bind,from=tools,source=/build/venv/bin,target=/mnt \
    --mount=type=secret,id=ca,required=false \
    --mount=type=cache,target=/root/.cache/uv \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    export UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never UV_NO_CONFIG=1; \
    export PYC_INVALIDATION_MODE=UNCHECKED_HASH VIRTUAL_ENV=/opt/inkbatch; \
    lock=/usr/share/inkbatch/runtime.lock; \
    if [ "${TORCH_FLAVOUR}" != locked ]; then \
      lock="/usr/share/inkbatch/runtime-${TORCH_FLAVOUR}.lock"; export UV_TORCH_BACKEND="${TORCH_FLAVOUR}"; \
    fi; \
    /mnt/uv venv --quiet --python "$(command -v python3)" /opt/inkbatch && \
    /mnt/uv pip install --quiet --require-hashes -r "${lock}" && \
    find /opt/inkbatch/lib -type d -name tests -prune -exec rm -rf {} + && \
    rm -rf /opt/inkbatch/lib/python3*/site-packages/torch/include /opt/inkbatch/lib/python3*/site-packages/torch/share

COPY --from=package /opt/package /opt/inkbatch

# All caches go to /scratch: the root file system may be read-only, and any user id may run the image.
ENV PATH=/opt/inkbatch/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/scratch \
    TMPDIR=/scratch \
    XDG_CACHE_HOME=/scratch/.cache \
    HF_HOME=/scratch/.cache/huggingface \
    TRITON_CACHE_DIR=/scratch/.cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/scratch/.cache/inductor \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

ARG OLDEST_DRIVER=580
ARG BASE_IMAGE
ARG BASE_DIGEST=unknown
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
ENV INKBATCH_REVISION=${REVISION}
LABEL org.opencontainers.image.title="inkbatch" \
      org.opencontainers.image.description="Batch jobs that read ink in X-ray volumes of carbonised scrolls" \
      org.opencontainers.image.licenses="MIT AND CC-BY-NC-4.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}" \
      inkbatch.torch-flavour="${TORCH_FLAVOUR}" \
      inkbatch.oldest-nvidia-driver="${OLDEST_DRIVER}"

WORKDIR /data
USER 1000:1000
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "-s", "--", "inkbatch"]
CMD ["--help"]
