# The MLflow server. From the root of the repository:
#
#   docker build -f infra/docker/mlflow.Dockerfile --build-arg COMMIT="$(git rev-parse HEAD)" \
#       -t medvlm-mlflow:0.1.0 .
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/mlflow
ENV PATH=/opt/mlflow/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
RUN pip install -c constraints.txt "mlflow[auth]" boto3 psycopg2-binary
# Where python -m finds it.
COPY infra/docker/mlflow_schema.py /opt/mlflow/lib/python3.11/site-packages/

FROM ${PYTHON_IMAGE} AS final
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin mlflow
COPY --from=build /opt/mlflow /opt/mlflow
ENV PATH=/opt/mlflow/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
ARG COMMIT
RUN test -n "${COMMIT}" || { echo "no --build-arg COMMIT was given" >&2; exit 1; }
LABEL org.opencontainers.image.revision=${COMMIT} \
      org.opencontainers.image.title=medvlm-mlflow \
      org.opencontainers.image.licenses=Apache-2.0
WORKDIR /tmp
USER 10001:10001
EXPOSE 5000
ENTRYPOINT ["mlflow", "server"]
CMD ["--host=0.0.0.0", "--port=5000"]
