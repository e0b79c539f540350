# medclip serve and medclip app. Research software; not a medical device, not for clinical use.
#
#   docker build -t medclip .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/data:/data:ro" -e MEDCLIP_API_KEY medclip
#
# /data holds the index and, beside it, the model folder that made it; nothing of either is in the image.
# The digest is what is taken; `make pin` gives that of today behind the tag, where docker and the registry can be reached.
FROM python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285 AS build

RUN python -m venv /opt/medclip
WORKDIR /src
# the lock names every package with the hash of each of its files: nothing else is installed
COPY requirements-image.lock ./
RUN /opt/medclip/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/medclip/bin/pip install --no-cache-dir --no-deps --no-index --no-build-isolation . \
 && /opt/medclip/bin/pip uninstall --yes hatchling pip

FROM python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285
COPY --from=build /opt/medclip /opt/medclip
RUN useradd --system --uid 10001 --create-home medclip
USER 10001
ENV PATH=/opt/medclip/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/tmp/cache HF_HUB_OFFLINE=1
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
# a container's own loopback cannot be reached from outside it, so this listens on every address: give it a key
CMD ["medclip", "serve", "--index", "/data/index", "--host", "0.0.0.0", "--port", "8000"]
