#!/usr/bin/env bash
# On a machine with a GPU, from the project's folder: builds polo for it, compares what it computes with the CPU and with
# transformers, and measures DPO training against TRL on the same card.
#
#   bench/gpu.sh                              build and compare
#   bench/gpu.sh harmless-base-test.jsonl.gz  measure too (the data of bench/README.md)
#
#   POLO_DEVICE  cuda (the default) or vulkan
#   PYTHON       Python of an environment that holds TRL [../peers/bin/python]
#   FIGURES      the file that everything goes to [gpu-$POLO_DEVICE.txt]
set -euo pipefail
cd "$(dirname "$0")/.."
device=${POLO_DEVICE:-cuda}
case $device in cuda | vulkan) ;; *) echo "POLO_DEVICE is \`$device\`, and must be cuda or vulkan" >&2; exit 2 ;; esac
figures=${FIGURES:-gpu-$device.txt}
target=${CARGO_TARGET_DIR:-target}

{
  echo "# polo $(git rev-parse --short HEAD 2>/dev/null || echo '(no git)') on $device, $(rustc --version)"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || true
  vulkaninfo --summary 2>/dev/null | grep -E 'deviceName|driverInfo' || true
  grep -m1 'model name' /proc/cpuinfo 2>/dev/null || true

  echo "## The same numbers as on the CPU and in transformers"
  # Operations, forward and backward, against the CPU's kernels; logits, gradients and greedy answers of every family.
  POLO_TEST_DEVICE=$device cargo test --release -p polo-nn -p polo-lm --features "polo-lm/$device" -- \
    agree caches_equal logits_equal scores_of_trees gradients greedy logps_are

  cargo build --release -p polo --features "$device"
  if [ $# -gt 0 ]; then
    echo "## DPO against TRL"
    home=$(mktemp -d)
    trap 'rm -rf "$home"' EXIT
    for preset in small base; do
      "$target/release/polo" --quiet init-model "$home/$preset" --tokenizer-from "$1" --preset "$preset"
      echo "model: $preset"
      "${PYTHON:-../peers/bin/python}" bench/dpo_speed.py --polo "$target/release/polo" --model "$home/$preset" --data "$1" \
        --pairs 480 --runs 5 --warmup 10 --device "$device"
    done
  fi
} 2>&1 | tee "$figures"
