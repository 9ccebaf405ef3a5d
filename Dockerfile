# The image of angzarr-relay: one static binary, the public root certificates and the licence. It has no shell, no
# package manager and no C library, and nothing in it is written to.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag angzarr-relay .
#
# It wants its configuration at /etc/angzarr-relay/relay.toml, and runs as uid 1000 with a read-only root file system; a
# volume is needed only by a handler that writes files (jsonl). A certificate authority of your own is mounted as a file
# beside the public ones, such as /etc/ssl/certs/our-ca.crt. SSL_CERT_FILE and SSL_CERT_DIR name what is trusted instead
# of them.
#
# `.ci/image` builds it and tries all of this.

# The tag names the compiler and the Debian release. It has no digest, so that each build has Debian's newest root
# certificates, the only file of this stage that is shipped but for the binary; Cargo.lock pins what goes into that.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /build

# The host's own target is named, though it is the default: otherwise the static C library would be asked for in build
# scripts and procedural macros as well, which cannot have it.
ENV CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never RUSTFLAGS="-C target-feature=+crt-static"
ARG FEATURES=otel

# All dependencies, in a layer that stays until Cargo.toml, Cargo.lock or the features change. Cargo wants to see every
# target that Cargo.toml names, so each is there as an empty one.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it tests/verdict benches/drain benches/fleet \
    && for main in src tests/it benches/drain benches/fleet; do echo 'fn main() {}' >"$main/main.rs"; done \
    && echo 'fn main() {}' >tests/verdict/program.rs \
    && : >src/lib.rs \
    && cargo build --release --locked --no-default-features --features "$FEATURES" --target "$(rustc --print host-tuple)"

# The program. Cargo goes by the time of change, which for these files may be before the empty ones were built.
COPY src src
RUN find src -name '*.rs' -exec touch '{}' + \
    && cargo build --release --locked --no-default-features --features "$FEATURES" --target "$(rustc --print host-tuple)" \
    && mv "target/$(rustc --print host-tuple)/release/angzarr-relay" /angzarr-relay

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /angzarr-relay /usr/local/bin/angzarr-relay
COPY LICENSE /licenses/LICENSE

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="angzarr-relay" \
      org.opencontainers.image.description="Turns a DynamoDB event store into dependable projections, sagas and Kinesis streams" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

# By number: Kubernetes' runAsNonRoot cannot look a name up.
USER 1000:1000
# /metrics, /livez and /readyz.
EXPOSE 9464
# Stops it cleanly, within relay.shutdown_grace (20 s).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/angzarr-relay"]
CMD ["run", "--config", "/etc/angzarr-relay/relay.toml"]
