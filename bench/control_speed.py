"""Steps per second of training end to end, polo against stable-baselines3, both in this run on this machine.

    cargo build --release -p polo
    python bench/control_speed.py target/release/polo [--runs 5]

Runs are interleaved; medians are reported, with the peak memory of each process. stable-baselines3 and gymnasium come
from PyPI, torch takes two threads. Settings are stable-baselines3's defaults on both sides where nothing else is said;
every run trains from nothing, evaluates nothing and writes one checkpoint at its end.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

TASKS = {
    "PPO CartPole-v1, 8 copies": dict(
        method="ppo", env="CartPole-v1", steps=65536,
        polo="method.copies=8 method.rollout=256 method.minibatches=32 method.epochs=10 method.learning_rate=3e-4 "
             "method.clip_value=false method.entropy=0 method.anneal=false",
        peer="PPO('MlpPolicy', make_vec_env(env, 8), n_steps=256, batch_size=64, n_epochs=10, device='cpu')",
    ),
    "PPO CartPole-v1, 1 copy": dict(
        method="ppo", env="CartPole-v1", steps=32768,
        polo="method.copies=1 method.rollout=2048 method.minibatches=32 method.epochs=10 method.learning_rate=3e-4 "
             "method.clip_value=false method.entropy=0 method.anneal=false",
        peer="PPO('MlpPolicy', make_vec_env(env, 1), n_steps=2048, batch_size=64, n_epochs=10, device='cpu')",
    ),
    "PPO Pendulum-v1, 1 copy": dict(
        method="ppo", env="Pendulum-v1", steps=32768,
        polo="method.copies=1 method.rollout=2048 method.minibatches=32 method.epochs=10 method.learning_rate=3e-4 "
             "method.clip_value=false method.anneal=false method.normalise_observations=false "
             "method.normalise_rewards=false",
        peer="PPO('MlpPolicy', make_vec_env(env, 1), n_steps=2048, batch_size=64, n_epochs=10, device='cpu')",
    ),
    "SAC Pendulum-v1, batch 256, 2 x 256": dict(
        method="sac", env="Pendulum-v1", steps=2000,
        polo="method.random_steps=100 method.policy_every=1 method.critic_rate=3e-4",
        peer="SAC('MlpPolicy', env, device='cpu')",
    ),
    "TD3 Pendulum-v1, batch 256, 2 x 256": dict(
        method="td3", env="Pendulum-v1", steps=2000,
        polo="method.random_steps=100 method.learning_rate=1e-3",
        peer="TD3('MlpPolicy', env, policy_kwargs=dict(net_arch=[256, 256]), device='cpu')",
    ),
}

PEER = """
import time, sys, torch
torch.set_num_threads(2)
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
env, steps = sys.argv[1], int(sys.argv[2])
model = {peer}
clock = time.perf_counter()
model.learn(steps)
print(time.perf_counter() - clock)
"""


def measured(command, **more):
    """Output of a command, its wall time and the peak memory of its process, MB."""
    clock = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **more)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    return said, time.perf_counter() - clock, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("polo")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    polo = os.path.abspath(arguments.polo)
    print("| task | polo, steps/s | stable-baselines3, steps/s | polo is faster by | polo, MB | stable-baselines3, MB |")
    print("|---|---|---|---|---|---|")
    for name, task in TASKS.items():
        ours, theirs, our_memory, their_memory = [], [], [], []
        for _ in range(arguments.runs):
            with tempfile.TemporaryDirectory() as folder:
                sets = [part for setting in task["polo"].split() for part in ("--set", setting)]
                line = [polo, "train", task["method"], "--env", task["env"], "--out", folder + "/run", "--quiet",
                        "--set", f"training.steps={task['steps']}", "--set", "training.evaluate_every=0",
                        "--set", "training.evaluation_episodes=1", "--set", "training.checkpoint_every=0", *sets]
                # All of polo's process counts, its start and its files, too.
                _, seconds, memory = measured(line)
                ours.append(task["steps"] / seconds)
                our_memory.append(memory)
            said, _, memory = measured(
                [sys.executable, "-c", PEER.format(peer=task["peer"]), task["env"], str(task["steps"])])
            # Of the peer's, training alone: importing torch takes seconds.
            theirs.append(task["steps"] / float(said.split()[-1]))
            their_memory.append(memory)
        own, other = statistics.median(ours), statistics.median(theirs)
        print(f"| {name} | {own:,.0f} | {other:,.0f} | {own / other:.1f}x | {statistics.median(our_memory):.0f} "
              f"| {statistics.median(their_memory):.0f} |", flush=True)


if __name__ == "__main__":
    main()
