# Two images from one file: `--target operator` and `--target trainer`.
# BASE is any Debian-like image with a python3 that pyproject.toml accepts, its venv module and CA certificates.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS requirements
WORKDIR /requirements
COPY pyproject.toml images/requirements.py ./
RUN python3 requirements.py operator trainer

# What both images start from: the installer, the user, and a virtual environment that finds the sources in /opt/app.
FROM ${BASE} AS environment
ARG UV_VERSION=0.13.9
ENV PATH=/opt/distill/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A name for the user id, because getpass and with it torch fail without one.
RUN grep -q ":65532:" /etc/passwd || { \
      echo "distill:x:65532:65532::/tmp:/usr/sbin/nologin" >> /etc/passwd; \
      echo "distill:x:65532:" >> /etc/group; \
    }
RUN python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}" \
 && /opt/uv/bin/uv venv --python "$(command -v python3)" /opt/distill

FROM environment AS operator
# Whoever mounts a cache into the build says where (UV_CACHE_DIR) and sets UV_NO_CACHE=0; it stays out of the layer.
ARG UV_NO_CACHE=1
ARG UV_CACHE_DIR=/var/cache/uv
ARG UV_LINK_MODE=copy
COPY constraints.txt overrides.txt /opt/requirements/
COPY --from=requirements /requirements/operator.txt /opt/requirements/
RUN /opt/uv/bin/uv pip install --python /opt/distill --compile-bytecode --requirements /opt/requirements/operator.txt \
      --constraints /opt/requirements/constraints.txt --overrides /opt/requirements/overrides.txt
COPY crds/distill_api /opt/app/distill_api
COPY operator/distill_operator /opt/app/distill_operator
COPY --from=requirements /requirements/metadata /opt/app
RUN python -m compileall -q /opt/app
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "distill_operator"]

FROM environment AS trainer
ARG UV_NO_CACHE=1
ARG UV_CACHE_DIR=/var/cache/uv
ARG UV_LINK_MODE=copy
# Everything but the mounted volumes is read-only where this runs; what libraries keep for themselves goes to /tmp.
ENV HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    YOLO_CONFIG_DIR=/tmp/ultralytics
COPY constraints.txt overrides.txt /opt/requirements/
COPY --from=requirements /requirements/trainer.txt /opt/requirements/
RUN /opt/uv/bin/uv pip install --python /opt/distill --compile-bytecode --requirements /opt/requirements/trainer.txt \
      --constraints /opt/requirements/constraints.txt --overrides /opt/requirements/overrides.txt
COPY crds/distill_api /opt/app/distill_api
COPY trainer/distill_trainer /opt/app/distill_trainer
COPY --from=requirements /requirements/metadata /opt/app
RUN python -m compileall -q /opt/app
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "distill_trainer"]
