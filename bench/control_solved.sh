#!/usr/bin/env bash
# Whether PPO solves CartPole-v1 and SAC Pendulum-v1, over five seeds: the mean return of each seed's policy in 100
# episodes. Curves stand in each run's report.html.
#
#     cargo build --release -p polo
#     bench/control_solved.sh target/release/polo runs/solved
set -eu
polo=$1
out=$2
for seed in 0 1 2 3 4; do
  "$polo" train ppo --env CartPole-v1 --out "$out/ppo-$seed" --seed $seed --quiet --set training.steps=500000 \
    --set training.evaluate_every=50000 > /dev/null
  echo "PPO CartPole-v1, seed $seed: $("$polo" evaluate --model "$out/ppo-$seed/final" --episodes 100 --seed 1000 | head -1)"
done
for seed in 0 1 2 3 4; do
  "$polo" train sac --env Pendulum-v1 --out "$out/sac-$seed" --seed $seed --quiet --set training.steps=15000 \
    --set training.evaluate_every=1500 --set method.hidden=[128,128] --set method.policy_rate=1e-3 \
    --set method.random_steps=500 --set method.batch=128 > /dev/null
  echo "SAC Pendulum-v1, seed $seed: $("$polo" evaluate --model "$out/sac-$seed/final" --episodes 100 --seed 1000 | head -1)"
done
