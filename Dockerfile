FROM python:3.11-slim-bookworm AS wheel
COPY pyproject.toml README.md LICENSE /source/
COPY pipeline /source/pipeline
COPY bundles /source/bundles
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel /source \
 && python -c "import tomllib as t; print(*t.load(open('/source/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > /requirements.txt

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="phs-pipeline" \
      org.opencontainers.image.description="Pseudo-healthy synthesis for medical scans; for research, not diagnosis" \
      org.opencontainers.image.licenses="Apache-2.0 AND BSD-2-Clause AND ISC AND MIT AND CC-BY-NC-SA-4.0"

# PyPI's torch computes on NVIDIA GPUs and on CPUs; https://download.pytorch.org/whl/cpu gives a far smaller image.
ARG TORCH_INDEX=""

# The dependencies have a layer of their own, so that a change of the source rebuilds seconds, not gigabytes.
WORKDIR /build
COPY --from=wheel /requirements.txt ./
COPY constraints.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt -r requirements.txt

# Any user id can run the image: all have a home, and a name, without which `import monai` fails for unknown ids.
ENV HOME=/tmp/home USER=phs MPLCONFIGDIR=/tmp/home/matplotlib PYTHONUNBUFFERED=1
RUN mkdir -p "$MPLCONFIGDIR" && python -c "import matplotlib.font_manager" && chmod -R a+rwX "$HOME"

COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir --no-deps /wheel/*.whl

# Not writable unless a folder is mounted here: results that would go with the container are refused instead.
WORKDIR /work
USER 1000:1000
# Python answers this one as the first process too: a stopped training says so and can be resumed.
STOPSIGNAL SIGINT
ENTRYPOINT ["phs-pipeline"]
CMD ["--help"]
