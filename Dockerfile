# Two base images, both by build argument. The build needs Rust and a C++ compiler, what runs needs a C library as new as the build's:
#   docker build -t smg:local .
#   docker build -t smg:local --build-arg BUILD_IMAGE=registry.example/rust:1.95-bookworm --build-arg RUNTIME_IMAGE=registry.example/debian:bookworm-slim .
# `make image` makes the same image without a registry, from the binary of this machine (.ci/image): it reads what is below the line `# === runtime`.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ libclang-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /smg
COPY . .
RUN cargo build --locked --release --bin smg \
  && install -D target/release/smg /out/smg && strip --strip-debug /out/smg && mkdir /out/data

# === runtime
FROM ${RUNTIME_IMAGE}
COPY --from=build /out/smg /usr/local/bin/smg
# An empty directory of the user's, so that a volume mounted there is writable.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
ENV SMG_DATA_DIR=/data
VOLUME /data
# Clients, other nodes, metrics.
EXPOSE 30000/tcp 30001/udp 29000/tcp
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 CMD ["/usr/local/bin/smg", "status", "--ready"]
ENTRYPOINT ["/usr/local/bin/smg"]
