# The server, in front of a model server: docs/serve.md. No torch, so it is small; with a model in the same process:
# docker build --build-arg EXTRAS=serve,hf
FROM python:3.13-slim AS build
ARG EXTRAS=serve
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/inftythink
RUN /opt/inftythink/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home inftythink
COPY --from=build /opt/inftythink /opt/inftythink
USER inftythink
WORKDIR /home/inftythink
ENV PATH=/opt/inftythink/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["inftythink"]
CMD ["serve", "--host", "0.0.0.0", "--key-env", "INFTYTHINK_KEY"]
