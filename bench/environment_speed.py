"""Steps per second of environments under random actions on one thread: polo, Gymnasium and, where it is installed,
EnvPool, all in this run on this machine.

    cargo build --release -p polo-sim --example environment_speed
    python bench/environment_speed.py target/release/examples/environment_speed [--runs 5] [--seconds 1] [--environments ID ...]

One copy is a single environment, reset when its episode ends (Gymnasium's `make`); 64 copies are a vector that resets by
itself (Gymnasium's `make_vec`, copy by copy and, where the environment has one, in NumPy; EnvPool on one thread). All
copies' steps count. Actions are drawn before the clock starts. Every run is a process of its own that takes about
--seconds; runs are interleaved, and medians are reported.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

ENVIRONMENTS = ["CartPole-v1", "Pendulum-v1"]
COPIES = 64
DRAWN = 1024


def single(identity, steps):
    import gymnasium

    environment = gymnasium.make(identity)
    environment.action_space.seed(0)
    actions = [environment.action_space.sample() for _ in range(DRAWN)]
    environment.reset(seed=0)
    clock = time.perf_counter()
    for step in range(steps):
        _, _, terminated, truncated, _ = environment.step(actions[step % DRAWN])
        if terminated or truncated:
            environment.reset()
    return steps / (time.perf_counter() - clock)


def vector(environments, steps):
    environments.action_space.seed(0)
    return stepped(environments, [environments.action_space.sample() for _ in range(DRAWN)], steps)


def stepped(environments, actions, steps):
    environments.reset()
    clock = time.perf_counter()
    for step in range(steps // COPIES):
        environments.step(actions[step % DRAWN])
    return steps // COPIES * COPIES / (time.perf_counter() - clock)


def copy_by_copy(identity, steps):
    import gymnasium

    return vector(gymnasium.make_vec(identity, num_envs=COPIES, vectorization_mode="sync"), steps)


def in_numpy(identity, steps):
    import gymnasium

    return vector(gymnasium.make_vec(identity, num_envs=COPIES, vectorization_mode="vector_entry_point"), steps)


def envpool(identity, steps):
    import envpool
    import numpy

    pool = envpool.make_gymnasium(identity, num_envs=COPIES, num_threads=1, seed=0)
    pool.action_space.seed(0)
    draws = [numpy.stack([pool.action_space.sample() for _ in range(COPIES)]) for _ in range(DRAWN)]
    return stepped(pool, draws, steps)


PEERS = {
    1: {"Gymnasium, make": single},
    COPIES: {"Gymnasium, make_vec, sync": copy_by_copy, "Gymnasium, make_vec, NumPy": in_numpy, "EnvPool": envpool},
}


def measured(command):
    """Steps per second that a command prints; none where the peer is missing or has no such environment."""
    threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"], "1")
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads})
    if done.returncode:
        print(f"{' '.join(command)}: {(done.stderr.strip() or 'failed').splitlines()[-1]}", file=sys.stderr)
        return None
    return float(done.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("polo", help="the built example environment_speed")
    parser.add_argument("--environments", nargs="+", default=ENVIRONMENTS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each run takes")
    arguments = parser.parse_args()
    print("| environment | copies | simulator | steps/s | polo is faster by |")
    print("|---|---|---|---|---|")
    for identity in arguments.environments:
        for copies, peers in PEERS.items():
            own = lambda steps: [os.path.abspath(arguments.polo), identity, str(steps), str(copies)]
            commands = {"polo": own}
            for name in peers:
                commands[name] = lambda steps, name=name: [sys.executable, __file__, "--peer", name, identity, str(steps)]
            # A short run says how many steps fill the time, and who is there.
            found, steps = {}, {}
            for name, command in commands.items():
                speed = measured(command(20_000))
                if speed is not None:
                    found[name], steps[name] = [], max(20_000, int(speed * arguments.seconds))
            for _ in range(arguments.runs):
                for name, runs in found.items():
                    runs.append(measured(commands[name](steps[name])))
            medians = {name: statistics.median(runs) for name, runs in found.items()}
            for name, speed in medians.items():
                ratio = "" if name == "polo" else f"{medians['polo'] / speed:.1f}x"
                print(f"| {identity} | {copies} | {name} | {speed:,.0f} | {ratio} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        named = {name: peer for peers in PEERS.values() for name, peer in peers.items()}
        print(named[sys.argv[2]](sys.argv[3], int(sys.argv[4])))
    else:
        main()
