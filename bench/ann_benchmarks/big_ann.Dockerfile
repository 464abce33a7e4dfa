# docker build --build-arg FOVEAL=URL_OF_THE_REPOSITORY.
FROM neurips23

ARG FOVEAL
RUN apt-get update \
    && apt-get install -y --no-install-recommends curl git ca-certificates gcc libc6-dev
RUN curl -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
RUN git clone --depth 1 "$FOVEAL" /opt/foveal \
    && cd /opt/foveal \
    && "$HOME/.cargo/bin/cargo" build --release -p foveal-server \
    && cp target/release/foveal /usr/local/bin/foveal \
    && rm -rf target
RUN pip3 install -r /opt/foveal/server/examples/python/requirements.txt
ENV FOVEAL=/usr/local/bin/foveal FOVEAL_PROTO=/opt/foveal/proto
RUN foveal --version
