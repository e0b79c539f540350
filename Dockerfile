# medclip serve and medclip app. Research software; not a medical device, not for clinical use.
#
#   docker build -t medclip .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/data:/data:ro" -e MEDCLIP_API_KEY medclip
#
# /data holds the index and, beside it, the model folder that made it; nothing of either is in the image.
FROM python:3.12-slim-bookworm AS build

ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv /opt/medclip
WORKDIR /src
COPY pyproject.toml requirements.lock README.md ./
COPY src src
# The lock says which versions, with the hash of each file; what the image does not need of it is not installed.
RUN uv pip install --no-cache --python /opt/medclip/bin/python --constraint requirements.lock \
      "hatchling" "editables" \
 && uv pip install --no-cache --python /opt/medclip/bin/python --constraint requirements.lock --no-build-isolation \
      ".[app,serve,dicom,faiss,milvus]" \
 && uv pip uninstall --python /opt/medclip/bin/python hatchling editables

FROM python:3.12-slim-bookworm
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
