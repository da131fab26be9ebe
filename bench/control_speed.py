"""Steps per second of training end to end, polo against stable-baselines3 or CleanRL, both in this run on this machine.

    cargo build --release -p polo
    python bench/control_speed.py target/release/polo [--runs 5]
    python bench/control_speed.py target/release/polo --cleanrl DIR [--runs 5]

Runs are interleaved; medians are reported, with the peak memory of each process. stable-baselines3 and gymnasium come
from PyPI, torch takes two threads. Settings are the peer's defaults on both sides where nothing else is said; every run
trains from nothing, evaluates nothing and writes one checkpoint at its end.

DIR is a checkout of https://github.com/vwxyzjn/cleanrl; its scripts run as they are, and need tyro and tensorboard.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

STABLE_BASELINES = {
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

# polo's defaults are CleanRL's, but for episodes that were cut.
CLEANRL = {
    "PPO CartPole-v1, 4 copies": dict(
        method="ppo", env="CartPole-v1", steps=65536, polo="method.bootstrap_truncated=false", peer="ppo.py",
    ),
    "PPO Pendulum-v1, 1 copy": dict(
        method="ppo", env="Pendulum-v1", steps=32768, polo="method.bootstrap_truncated=false",
        peer="ppo_continuous_action.py",
    ),
    "SAC Pendulum-v1, batch 256, 2 x 256": dict(
        method="sac", env="Pendulum-v1", steps=2001, polo="method.random_steps=100",
        peer="sac_continuous_action.py --learning-starts 100",
    ),
    "TD3 Pendulum-v1, batch 256, 2 x 256": dict(
        method="td3", env="Pendulum-v1", steps=2001, polo="method.random_steps=100",
        peer="td3_continuous_action.py --learning-starts 100",
    ),
}

STABLE_BASELINES_RUN = """
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


# CleanRL is made for Gymnasium 0.29. What Gymnasium 1 has renamed is given back to it: copies that begin anew in the same
# step, the name of an episode's last observation, and a wrapper whose last argument could be left out. Returns of
# episodes, which it only prints, are not passed on.
CLEANRL_RUN = """
import os, runpy, sys, torch
torch.set_num_threads(2)
import gymnasium
sys.path[:0] = [sys.argv[1], os.path.join(sys.argv[1], 'cleanrl')]
class Vector(gymnasium.vector.SyncVectorEnv):
    def __init__(self, copies):
        super().__init__(copies, autoreset_mode='SameStep')
    def step(self, actions):
        *step, infos = super().step(actions)
        infos = {'final_observation' if name == 'final_obs' else name: info for name, info in infos.items()}
        infos.pop('final_info', None)
        return *step, infos
class Transform(gymnasium.wrappers.TransformObservation):
    def __init__(self, environment, function):
        super().__init__(environment, function, None)
gymnasium.vector.SyncVectorEnv, gymnasium.wrappers.TransformObservation = Vector, Transform
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def measured(command, **more):
    """Output of a command, its wall time and the peak memory of its process, MB."""
    with tempfile.TemporaryFile("w+") as complaints:
        clock = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, **more)
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - clock
        if status:
            complaints.seek(0)
            sys.exit(f"{command} failed:\n{complaints.read()}")
    return said, seconds, usage.ru_maxrss / 1024


def stable_baselines(task, _):
    """Its steps per second and peak memory. Training alone: importing torch takes seconds."""
    run = STABLE_BASELINES_RUN.format(peer=task["peer"])
    said, _, memory = measured([sys.executable, "-c", run, task["env"], str(task["steps"])])
    return task["steps"] / float(said.split()[-1]), memory


def cleanrl(task, checkout):
    """The same of CleanRL, by the steps per second that it prints last, those since its environments were made."""
    script, *more = task["peer"].split()
    checkout = os.path.abspath(checkout)
    with tempfile.TemporaryDirectory() as folder:
        said, _, memory = measured(
            [sys.executable, "-c", CLEANRL_RUN, checkout, os.path.join(checkout, "cleanrl", script), "--no-cuda",
             "--env-id", task["env"], "--total-timesteps", str(task["steps"]), *more], cwd=folder)
    return float([line for line in said.splitlines() if line.startswith("SPS:")][-1].split()[1]), memory


def polo(program, task):
    """The same of polo. All of its process counts, its start and its files, too."""
    with tempfile.TemporaryDirectory() as folder:
        sets = [part for setting in task["polo"].split() for part in ("--set", setting)]
        _, seconds, memory = measured(
            [program, "train", task["method"], "--env", task["env"], "--out", folder + "/run", "--quiet",
             "--set", f"training.steps={task['steps']}", "--set", "training.evaluate_every=0",
             "--set", "training.evaluation_episodes=1", "--set", "training.checkpoint_every=0", *sets])
    return task["steps"] / seconds, memory


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("polo")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cleanrl", metavar="DIR", help="a checkout of CleanRL, to compare with")
    arguments = parser.parse_args()
    program = os.path.abspath(arguments.polo)
    name, tasks, peer = ("CleanRL", CLEANRL, cleanrl) if arguments.cleanrl else (
        "stable-baselines3", STABLE_BASELINES, stable_baselines)
    print(f"| task | polo, steps/s | {name}, steps/s | polo is faster by | polo, MB | {name}, MB |")
    print("|---|---|---|---|---|---|")
    for title, task in tasks.items():
        runs = [(*polo(program, task), *peer(task, arguments.cleanrl)) for _ in range(arguments.runs)]
        own, memory, other, their_memory = map(statistics.median, zip(*runs))
        print(f"| {title} | {own:,.0f} | {other:,.0f} | {own / other:.1f}x | {memory:.0f} | {their_memory:.0f} |",
              flush=True)


if __name__ == "__main__":
    main()
