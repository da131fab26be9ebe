#!/usr/bin/env bash
# Whether SAC learns Hopper-v5 within 200,000 steps, over three seeds: the mean return of each evaluation on the way (ten
# episodes, every 5,000 steps). Curves stand in each run's report.html. Needs a build with MuJoCo (docs/mujoco.md).
#
#     cargo build --release --features mujoco
#     bench/hopper_learns.sh target/release/polo runs/hopper
set -eu
polo=$1
out=$2
for seed in 1 2 3; do
  "$polo" train sac --env Hopper-v5 --out "$out/$seed" --seed $seed --quiet --set training.steps=200000 \
    --set training.evaluate_every=5000 --set training.evaluation_episodes=10 > /dev/null
  echo "seed $seed:" $(grep '"eval"' "$out/$seed/metrics.jsonl" | sed 's/.*mean_return":\([0-9-]*\).*/\1/')
done
