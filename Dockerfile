# One GPU node with the NVIDIA container toolkit. Not built or run by the project's tests.
#
#   docker build -t emolib .
#   docker run --rm --gpus all --shm-size 16g --user "$(id -u):$(id -g)" \
#     -v "$PWD/data:/emolib/data" -v "$PWD/weights:/emolib/weights" -v "$PWD/outputs:/emolib/outputs" \
#     emolib run h200
#
# PyTorch's wheels bring CUDA; the host brings the driver. For a machine without a GPU build with
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu -t emolib .
FROM python:3.12-slim-bookworm

# OpenCV needs libGL and glib; Triton compiles its launchers with gcc.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /emolib
COPY . .
ARG TORCH_INDEX=
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip install --no-cache-dir --no-deps torch torchvision -c constraints.txt --index-url "$TORCH_INDEX"; \
    fi \
 && pip install --no-cache-dir -e '.[train,ray,lab]' -c constraints.txt

# Any user may run it; models fetched with --download stay beside the other weights.
ENV HOME=/tmp USER=emolib EMOLIB_ROOT=/emolib HF_HOME=/emolib/weights/hub PYTHONUNBUFFERED=1
ENTRYPOINT ["emolib"]
CMD ["--help"]
