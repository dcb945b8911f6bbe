# syntax=docker/dockerfile:1

# rust-toolchain.toml is left out on purpose: the image's own toolchain builds.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# The manifest names the integration tests, which are not part of the image.
RUN mkdir -p tests/it && echo 'fn main() {}' > tests/it/main.rs
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin entropy \
    && cp target/release/entropy /usr/local/bin/entropy

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home entropy
COPY --from=build /usr/local/bin/entropy /usr/local/bin/entropy
USER entropy
WORKDIR /home/entropy
ENV BIND=0.0.0.0:8000 LOG_FORMAT=json
EXPOSE 8000
ENTRYPOINT ["entropy"]
CMD ["api"]
