# Collection, and the Prefect server and workers around it. Build from the repository's root:
#   docker build -f docker/collect.Dockerfile -t mmearth-collect .
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/mmearth
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY flows flows
COPY mmearth_data mmearth_data
COPY mmearth_train mmearth_train
COPY sampling sampling
RUN /opt/mmearth/bin/pip install --constraint constraints.txt '.[collect,flows,dask,docker,objects]'

FROM python:3.11.14-slim-bookworm
# A volume takes its owner from the folder that it is mounted on, where there is one.
RUN useradd --create-home --uid 1000 mmearth \
    && install --directory --owner mmearth /data /srv/mmearth /home/mmearth/.config /home/mmearth/.prefect
COPY --from=build /opt/mmearth /opt/mmearth
COPY --chown=mmearth flows/prefect.yaml /srv/mmearth/
ENV PATH=/opt/mmearth/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem
USER 1000
WORKDIR /srv/mmearth
CMD ["mmearth", "--help"]
