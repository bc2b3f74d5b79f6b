# Pretraining alone: no Earth Engine, no GeoPandas, no Prefect. Build from the repository's root:
#   docker build -f docker/train.Dockerfile -t mmearth-train .
# torch brings its CUDA libraries along; the machine brings the driver.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/mmearth
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY flows flows
COPY mmearth_data mmearth_data
COPY mmearth_train mmearth_train
COPY sampling sampling
RUN /opt/mmearth/bin/pip install --constraint constraints.txt '.[train,objects]'

FROM python:3.11.14-slim-bookworm
# What Triton's kernels and `mmearth pretrain --compile` are built with; any version of it will do.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 mmearth && install --directory --owner mmearth /data
COPY --from=build /opt/mmearth /opt/mmearth
ENV PATH=/opt/mmearth/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
WORKDIR /data
ENTRYPOINT ["mmearth"]
CMD ["pretrain", "--help"]
