"""Do Minari, h5py and polo read each other's datasets? Every number is compared, also the spaces and the environments.

    cargo build --features hdf5
    python -m venv peers && peers/bin/pip install 'minari[hdf5,create]' safetensors
    peers/bin/python bench/minari_round_trip.py target/debug/polo

(a) `polo data collect` writes Minari's form: Minari loads it by its name, lists it, iterates and filters its episodes,
appends to it and makes its environment again.
(b) Minari's DataCollector writes CartPole-v1, Pendulum-v1 and Taxi-v4 (or v3), once with a space of nested parts and
gzip: polo reads them, and so does Minari what polo makes of them.
(c) h5py writes files as D4RL does, with time-outs, columns [N, 1] and gzip: polo keeps the transitions that D4RL's
`qlearning_dataset` keeps, or all where `next_observations` are stored; and h5py reads what polo writes.

polo's numbers are seen through its own form, NAME.safetensors. Ends with 1 where anything differs.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import warnings

import gymnasium as gym
import h5py
import numpy as np
from safetensors.numpy import load_file

COLUMNS = ["observations", "actions", "rewards", "next_observations", "terminated", "ends"]


def run(polo, *arguments):
    done = subprocess.run([polo, "data", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"polo data {' '.join(map(str, arguments))}\n{done.stderr}")


def through_polo(polo, path, folder):
    """What polo reads in a dataset."""
    own = folder / "read.safetensors"
    run(polo, "mix", path, "--out", own)
    return load_file(own)


def transitions(episodes, observe=lambda x: x, start=0):
    """Episodes of Minari as polo should read them."""
    rows = {name: [] for name in COLUMNS}
    for episode in episodes:
        seen = observe(episode.observations)
        rows["observations"].append(seen[:-1])
        rows["next_observations"].append(seen[1:])
        rows["actions"].append(episode.actions - start)
        rows["rewards"].append(episode.rewards)
        rows["terminated"].append(episode.terminations)
        rows["ends"].append(np.arange(len(episode.rewards)) == len(episode.rewards) - 1)
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def same(label, found, expected):
    for name in COLUMNS:
        a = np.asarray(found[name], np.float32)
        a, b = a.reshape(len(a), -1), np.asarray(expected[name], np.float32).reshape(len(a), -1)
        assert np.array_equal(a, b), f"{label}: {name} differ"
    print(f"{label}: {len(found['rewards'])} transitions are the same")


def written_by_polo(minari, polo, root, folder):
    environments = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
    for number, id in enumerate([*environments, "polo/PointMaze-v0"]):
        own, name = folder / "own.safetensors", f"polo-test/random{number}-v0"
        run(polo, "collect", "--env", id, "--episodes", 12, "--seed", 3, "--out", own)
        run(polo, "collect", "--env", id, "--episodes", 12, "--seed", 3, "--out", root / name)
        dataset = minari.load_dataset(name)
        assert name in minari.list_local_datasets() and dataset.id == name
        episodes = list(dataset.iterate_episodes())
        assert repr(episodes[0]).startswith("EpisodeData(")
        assert [episode.id for episode in episodes] == list(range(12)) and len(dataset) == 12
        expected = load_file(own)
        assert dataset.total_steps == len(expected["rewards"])
        same(f"(a) {id} by polo, in Minari", transitions(episodes), expected)
        for episode, about in zip(episodes, dataset.storage.get_episode_metadata(range(12))):
            assert dataset.action_space.contains(episode.actions[0]) and episode.terminations.dtype == bool
            assert np.isclose(about["rewards_sum"], episode.rewards.sum(dtype=float))
            assert episode.terminations[-1] or episode.truncations[-1]
        cut = dataset.filter_episodes(lambda episode: episode.truncations[-1])
        assert len(cut) == sum(bool(episode.truncations[-1]) for episode in episodes)
        if id.startswith("polo/"):
            assert dataset.env_spec is None
            continue
        assert dataset.env_spec == gym.spec(id), "the registry of Gymnasium has changed"
        environment = dataset.recover_environment()
        for ours, theirs in [
            (dataset.observation_space, environment.observation_space),
            (dataset.action_space, environment.action_space),
        ]:
            assert ours == theirs or np.array_equal(ours.low, theirs.low) and np.array_equal(ours.high, theirs.high)
        dataset.update_dataset_from_buffer(
            [minari.data_collector.EpisodeBuffer(
                observations=list(episodes[0].observations), actions=list(episodes[0].actions),
                rewards=list(episodes[0].rewards), terminations=list(episodes[0].terminations),
                truncations=list(episodes[0].truncations))]
        )
        longer = transitions([*episodes, episodes[0]])
        same(f"(a) {id}, appended to by Minari, in polo", through_polo(polo, root / name, folder), longer)
    print("(a) specs:", end=" ")
    for id in SPECS:
        # A dataset of one environment that calls itself another's: only the name counts here.
        path = root / "polo-test" / "spec-v0"
        with h5py.File(folder / "spec.hdf5", "w") as file:
            about = {"environment": id, "observations": {"Discrete": 2}, "actions": {"Discrete": 2}, "source": ""}
            file["metadata/polo"] = json.dumps(about)
            for name in ["observations", "actions", "rewards", "terminals", "timeouts", "next_observations"]:
                file[name] = np.ones(3)
        run(polo, "mix", folder / "spec.hdf5", "--out", path)
        assert minari.MinariDataset(path / "data").env_spec == gym.spec(id), id
        print(id, end=" ")
    print()


SPECS = [
    "Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5", "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5", "Pusher-v5", "Reacher-v5", "Swimmer-v5", "Walker2d-v5",
]


class Nested(gym.ObservationWrapper):
    """Shows a cart in a dictionary, with a choice inside."""

    def __init__(self, environment):
        super().__init__(environment)
        self.observation_space = gym.spaces.Dict({
            "pole": gym.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "cart": gym.spaces.Tuple([gym.spaces.Box(-np.inf, np.inf, (1, 2), np.float32), gym.spaces.Discrete(2, start=3)]),
        })

    def observation(self, seen):
        return {"pole": seen[2:].astype(float), "cart": (seen[None, :2], np.int64(3 + (seen[0] > 0)))}


def written_by_minari(minari, polo, root, folder):
    taxi = next(id for id in ["Taxi-v4", "Taxi-v3"] if id in gym.registry)
    for id, wrap in [("CartPole-v1", None), ("Pendulum-v1", None), (taxi, None), ("CartPole-v1", Nested)]:
        name = f"minari-test/{'nested' if wrap else id.lower()[:-3]}-v0"
        environment = gym.make(id)
        collector = minari.DataCollector(wrap(environment) if wrap else environment, record_infos=True)
        for episode in range(12):
            collector.reset(seed=episode)
            collector.action_space.seed(episode)
            over = False
            while not over:
                *_, terminated, truncated, _ = collector.step(collector.action_space.sample())
                over = terminated or truncated
        dataset = collector.create_dataset(dataset_id=name, algorithm_name="random")
        path = root / name
        if wrap:
            compress(path / "data" / "main_data.hdf5")
        flat = dataset.observation_space if wrap else None
        observe = (lambda seen: flattened(flat, seen)) if wrap else lambda seen: seen
        expected = transitions(dataset.iterate_episodes(), observe)
        label = f"{'nested ' if wrap else ''}{id}"
        same(f"(b) {label} by Minari, in polo", through_polo(polo, path, folder), expected)
        facts = subprocess.run([polo, "data", "info", path, "--json"], capture_output=True, text=True, check=True)
        assert json.loads(facts.stdout)["environment"] == ("" if wrap else id)
        again = root / f"{name[:-3]}-again-v0"
        run(polo, "mix", path, "--out", again)
        back = minari.load_dataset(str(again.relative_to(root)))
        same(f"(b) {label} by Minari, by polo, in Minari", transitions(back.iterate_episodes()), expected)


def flattened(space, seen):
    """Rows of nested observations as Gymnasium flattens them."""
    rows = len(seen["pole"])
    row = lambda i: {"pole": seen["pole"][i], "cart": (seen["cart"][0][i], seen["cart"][1][i])}
    return np.stack([gym.spaces.flatten(space, row(i)) for i in range(rows)])


def compress(path):
    """Stores every array anew, by gzip."""
    with h5py.File(path, "a") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            values = file[name][()]
            del file[name]
            file.create_dataset(name, data=values, compression="gzip" if values.shape else None)


def d4rl_rows(seed, episodes=9, limit=40):
    """Steps of a random walk in three dimensions: terminals at random, time-outs after `limit` steps."""
    random = np.random.default_rng(seed)
    rows = {name: [] for name in ["observations", "actions", "rewards", "next_observations", "terminals", "timeouts"]}
    for _ in range(episodes):
        seen, step, over, cut = random.normal(size=3), 0, False, False
        while not (over or cut):
            action = random.uniform(-1, 1, 3)
            after, step = seen + 0.1 * action, step + 1
            over, cut = bool(random.random() < 0.02), step == limit
            for name, value in zip(rows, [seen, action, after.sum(), after, over, cut and not over]):
                rows[name].append(value)
            seen = after
    dtypes = [np.float32] * 4 + [bool] * 2
    return {name: np.array(rows[name], dtype) for name, dtype in zip(rows, dtypes)}


def qlearning_dataset(rows):
    """D4RL's rule (d4rl/__init__.py) for files with `timeouts`."""
    count = len(rows["rewards"])
    kept = [i for i in range(count - 1) if not rows["timeouts"][i]]
    return kept


def written_by_h5py(polo, folder):
    rows = d4rl_rows(0)
    count = len(rows["rewards"])
    ends = rows["terminals"] | rows["timeouts"]
    for stored in [False, True]:
        path = folder / "hopper-medium-v2.hdf5"
        with h5py.File(path, "w") as file:
            for name, values in rows.items():
                if name in ["rewards", "terminals"]:
                    values = values[:, None]
                if stored or name != "next_observations":
                    file.create_dataset(name, data=values, compression="gzip")
            file["infos/qpos"] = np.zeros((count, 5))
            file["metadata/algorithm"] = "walk"
        kept = list(range(count)) if stored else qlearning_dataset(rows)
        # A terminal last step says all that is needed; D4RL leaves it out with every last step.
        if not stored and rows["terminals"][-1]:
            kept.append(count - 1)
        after = rows["next_observations"] if stored else np.roll(rows["observations"], -1, 0)
        last = np.isin(kept, np.flatnonzero(ends)) | ~np.isin(np.array(kept) + 1, kept)
        expected = {
            "observations": rows["observations"][kept], "actions": rows["actions"][kept],
            "rewards": rows["rewards"][kept], "next_observations": after[kept],
            "terminated": rows["terminals"][kept], "ends": last,
        }
        found = through_polo(polo, path, folder)
        label = f"(c) D4RL's form by h5py, {'with' if stored else 'without'} next_observations, in polo"
        same(label, found, expected)
    written = folder / "walk.hdf5"
    run(polo, "mix", path, "--out", written)
    with h5py.File(written) as file:
        for name, values in rows.items():
            assert np.array_equal(file[name][()], values) and file[name].dtype == values.dtype, name
    print(f"(c) D4RL's form by polo, in h5py: {count} transitions are the same")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("polo", type=pathlib.Path)
    polo = arguments.parse_args().polo.resolve()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        folder, root = pathlib.Path(scratch), pathlib.Path(scratch) / "minari"
        root.mkdir()
        os.environ["MINARI_DATASETS_PATH"] = str(root)
        import minari

        print(f"Minari {minari.__version__}, Gymnasium {gym.__version__}, h5py {h5py.__version__}")
        written_by_polo(minari, polo, root, folder)
        written_by_minari(minari, polo, root, folder)
        written_by_h5py(polo, folder)


main()
