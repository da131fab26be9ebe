"""Gradient updates per second of TD3+BC, IQL and SAC, polo against CORL and CleanRL, all in this run on this machine.

    cargo build --release -p polo
    python bench/update_speed.py target/release/polo --corl DIR --cleanrl DIR [--runs 5]

Batches of 256, hidden layers 2 x 256, two threads. Runs are interleaved; medians are reported, with the peak memory of each
process, and the share that polo's matrix products alone, at the speed at which torch multiplies square matrices on the same
two threads (the better of two sizes, measured between the runs), would have had of polo's time.

The DIRs are checkouts of https://github.com/corl-team/CORL and https://github.com/vwxyzjn/cleanrl. CORL's classes run as
they are, in the loop of its `train`, on the data that polo learns from; what it imports for environments and logs alone
(d4rl, gym, pyrallis, wandb) is replaced by nothing. CleanRL's SAC runs as control_speed.py says. torch, numpy and
safetensors come from PyPI, and for CleanRL gymnasium, tyro and tensorboard.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

from control_speed import cleanrl, measured

OBSERVATION, ACTION, BATCH, HIDDEN = 3, 1, 256, 256

CORL_RUN = """
import sys, time, types
import numpy, torch
from safetensors.numpy import load_file
torch.set_num_threads(2)
class Nothing(types.ModuleType):
    def __getattr__(self, name):
        return type(name, (), {})
for name in ('d4rl', 'gym', 'wandb', 'pyrallis'):
    sys.modules[name] = Nothing(name)
sys.modules['pyrallis'].wrap = lambda: lambda function: function
sys.path.insert(0, sys.argv[1])
import MODULE as corl
for name in ('d4rl', 'gym', 'wandb', 'pyrallis'):
    del sys.modules[name]
data, updates = load_file(sys.argv[2]), int(sys.argv[3])
observations, actions = data['observations'], data['actions']
buffer = corl.ReplayBuffer(observations.shape[1], actions.shape[1], len(observations))
buffer.load_d4rl_dataset(dict(
    observations=observations, actions=actions, rewards=data['rewards'].ravel(),
    next_observations=data['next_observations'], terminals=data['terminated'].ravel()))
config = corl.TrainConfig()
adam = lambda network: torch.optim.Adam(network.parameters(), lr=3e-4)
sizes = observations.shape[1], actions.shape[1]
BUILD
clock = time.perf_counter()
for _ in range(updates):
    batch = [column.to('cpu') for column in buffer.sample(config.batch_size)]
    trainer.train(batch)
print(time.perf_counter() - clock)
"""

TD3_BC = """
actor, critics = corl.Actor(*sizes, 1.0), [corl.Critic(*sizes) for _ in range(2)]
trainer = corl.TD3_BC(1.0, actor, adam(actor), critics[0], adam(critics[0]), critics[1], adam(critics[1]))
"""

IQL = """
actor, critic, value = corl.GaussianPolicy(*sizes, 1.0), corl.TwinQ(*sizes), corl.ValueFunction(sizes[0])
trainer = corl.ImplicitQLearning(1.0, actor, adam(actor), critic, adam(critic), value, adam(value))
"""

PEAK = """
import time, torch
torch.set_num_threads(2)
best = 0
for size in (512, 2048):
    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    for _ in range(3):
        torch.mm(a, b, out=out)
    repeats = max(5, int(4e10 / size**3))
    clock = time.perf_counter()
    for _ in range(repeats):
        torch.mm(a, b, out=out)
    best = max(best, 2 * size**3 * repeats / (time.perf_counter() - clock))
print(best)
"""


def products(inputs, outputs):
    """Floating-point operations of one network's layers on a batch: forward; towards weights; towards inputs, the first
    layer's without and with."""
    layers = [2 * BATCH * a * b for a, b in ((inputs, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, outputs))]
    return sum(layers), sum(layers), sum(layers[1:]), sum(layers)


def operations(method):
    """Floating-point operations of the matrix products of an update, by the method's definition."""
    forward, weights, inner, inputs = products(OBSERVATION + ACTION, 1)
    critics = 2 * forward + 2 * forward + 2 * (weights + inner)
    if method == "iql":
        v_forward, v_weights, v_inner, _ = products(OBSERVATION, 1)
        a_forward, a_weights, a_inner, _ = products(OBSERVATION, ACTION)
        return critics + 2 * v_forward + v_weights + v_inner + a_forward + a_weights + a_inner
    heads = ACTION if method == "td3-bc" else 2 * ACTION
    a_forward, a_weights, a_inner, _ = products(OBSERVATION, heads)
    if method == "td3-bc":
        return critics + a_forward + (a_forward + forward + inputs + a_weights + a_inner) / 2
    # The policy takes a step for each update; the least of two critics needs both, forward and back.
    return critics + a_forward + a_forward + 2 * forward + 2 * inputs + a_weights + a_inner + a_forward


def corl(checkout, module, build, data, updates):
    """Updates per second, and peak memory, MB."""
    run = CORL_RUN.replace("MODULE", module).replace("BUILD", build)
    folder = os.path.join(os.path.abspath(checkout), "algorithms", "offline")
    said, _, memory = measured([sys.executable, "-c", run, folder, data, str(updates)])
    return updates / float(said.split()[-1]), memory


def polo(program, method, updates, more):
    """The same of polo. All of its process counts, its start and its files, too."""
    with tempfile.TemporaryDirectory() as folder:
        _, seconds, memory = measured(
            [program, "train", method, "--out", folder + "/run", "--quiet", "--set", f"training.steps={updates}",
             "--set", "training.evaluate_every=0", "--set", "training.evaluation_episodes=1",
             "--set", "training.checkpoint_every=0", *more])
    return updates / seconds, memory


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("polo")
    parser.add_argument("--corl", metavar="DIR", required=True)
    parser.add_argument("--cleanrl", metavar="DIR", required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--methods", nargs="+", default=["td3-bc", "iql", "sac"])
    arguments = parser.parse_args()
    program = os.path.abspath(arguments.polo)
    updates = arguments.updates
    with tempfile.TemporaryDirectory() as folder:
        data = folder + "/medium.safetensors"
        subprocess.run([program, "data", "collect", "--env", "polo/PendulumOffline-v0", "--policy", "medium",
                        "--episodes", "250", "--out", data, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        sac = dict(env="Pendulum-v1", steps=updates + 101, peer="sac_continuous_action.py --learning-starts 100")
        tasks = {
            "td3-bc": (["--data", data], lambda: corl(arguments.corl, "td3_bc", TD3_BC, data, updates)),
            "iql": (["--data", data], lambda: corl(arguments.corl, "iql", IQL, data, updates)),
            "sac": (["--env", "Pendulum-v1", "--set", "method.random_steps=100"],
                    lambda: cleanrl(sac, arguments.cleanrl)),
        }
        print("| method | polo, updates/s | peer, updates/s | polo is faster by | of the matmul peak, polo | peer "
              "| polo, MB | peer, MB |")
        print("|---|---|---|---|---|---|---|---|")
        peaks = []
        for method in arguments.methods:
            (more, peer), runs = tasks[method], []
            for _ in range(arguments.runs):
                said, _, _ = measured([sys.executable, "-c", PEAK])
                peaks.append(float(said))
                runs.append((*polo(program, method, updates, more), *peer(), peaks[-1]))
            own, memory, other, their_memory, peak = map(statistics.median, zip(*runs))
            share = operations(method) / peak
            print(f"| {method} | {own:,.0f} | {other:,.0f} | {own / other:.2f}x | {100 * share * own:.0f} % "
                  f"| {100 * share * other:.0f} % | {memory:.0f} | {their_memory:.0f} |", flush=True)
        print(f"\nmatmul peak: {statistics.median(peaks) / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
