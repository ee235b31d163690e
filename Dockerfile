# The service, with a model folder mounted at /model:
#   docker build -t rpbert . && docker run --read-only --tmpfs /tmp -p 8000:8000 -v $PWD/runs/a/model:/model:ro rpbert
# PIP_FLAGS may name a CPU index of PyTorch, where the default build is too large.
FROM python:3.12-slim
ARG PIP_FLAGS=""
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir $PIP_FLAGS -c constraints.txt '.[serve]' \
    && rm -r /build \
    && useradd --system --uid 10001 --no-create-home rpbert
USER 10001
WORKDIR /tmp
ENV HF_HUB_OFFLINE=1 HOME=/tmp PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["rpbert", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8000"]
