# docker buildx build --platform linux/amd64,linux/arm64 --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) .
# The same files as `make image` packs, by the same script. Built on the builder's own platform, for each other by a
# cross compiler.
ARG RUST=1.95.0
FROM --platform=$BUILDPLATFORM rust:${RUST}-bookworm AS build
ARG RUST
ARG TARGETARCH
# The image's own toolchain, without the formatter and lints that rust-toolchain.toml asks for.
ENV RUSTUP_TOOLCHAIN=${RUST}
RUN set -eux; \
    case "$TARGETARCH:$(dpkg --print-architecture)" in \
      amd64:amd64 | arm64:arm64) cross= ;; \
      arm64:*) cross="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; rustup target add aarch64-unknown-linux-gnu ;; \
      amd64:*) cross="gcc-x86-64-linux-gnu libc6-dev-amd64-cross"; rustup target add x86_64-unknown-linux-gnu ;; \
      *) echo "for amd64 and arm64 only, not $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    apt-get update; \
    apt-get install --yes --no-install-recommends ca-certificates cmake python3 $cross; \
    rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
ARG SOURCE_DATE_EPOCH=0
RUN scripts/image/root.sh --arch "$TARGETARCH" /root-of-image

FROM scratch
LABEL org.opencontainers.image.title="agentid" \
      org.opencontainers.image.description="An identity of its own for every AI agent on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /root-of-image/ /
# For probes: `agentid sidecar-ready`.
ENV PATH=/
USER 65532:65532
ENTRYPOINT ["/agentid"]
