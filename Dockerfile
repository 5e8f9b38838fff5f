# hv15 with the tested versions, for any machine with a container engine, and for jobs in containers:
#
#   docker build --build-arg COMMIT=$(git rev-parse HEAD) -t hv15 .
#   docker run --gpus all --shm-size 8g -v "$PWD/my-project:/project" hv15 run /project --follow
#
# On Debian, so that its Python is the one hv15 is tested with. torch's wheel brings CUDA; the machine brings the driver.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/hv15
ENV PATH=/opt/hv15/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The dependencies are a layer of their own, which an edit of the code leaves as it is.
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; \
print(*project['dependencies'], *extras['slurm'], *extras['kubernetes'], sep='\n')" > /tmp/requirements.txt \
    && pip install -c constraints.txt -r /tmp/requirements.txt
COPY . .
# Each LoRA tells the commit of the code that trained it.
ARG COMMIT=""
RUN HV15_COMMIT=$COMMIT pip install --no-deps . && hv15 --help > /dev/null

FROM ${BASE}
# Triton compiles the kernels' launchers when they are first used, with a C compiler and Python's headers.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/hv15 /opt/hv15
ENV PATH=/opt/hv15/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /project
ENTRYPOINT ["hv15"]
CMD ["--help"]
