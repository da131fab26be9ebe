"""Serves one Gymnasium environment: a JSON request a line on stdin, a JSON answer a line on stdout."""

import json, math, os, signal, sys, traceback

# What the environment prints goes to stderr, or it would stand between the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
# Whoever stops the run stops this process by closing its stdin.
signal.signal(signal.SIGINT, signal.SIG_IGN)


def answer(**fields):
    answers.write(json.dumps(fields) + "\n")
    answers.flush()


def fail(kind, error):
    answer(error=f"{type(error).__name__}: {error}", kind=kind, trace=traceback.format_tb(error.__traceback__))


def flat(value):
    """Numbers of an array or a scalar; None where one is not finite, since JSON has no word for it."""
    values = value.reshape(-1).tolist() if hasattr(value, "reshape") else [value]
    return [float(x) if math.isfinite(x) else None for x in values]


def describe(space):
    kind = type(space).__name__
    if kind == "Box":
        return {"low": flat(space.low), "high": flat(space.high)}
    return {"n": int(space.n)} if kind == "Discrete" else {"kind": kind}


def show(observation):
    return flat(observation - start if discrete else observation)


def decode(action):
    if isinstance(action, int):
        return action + int(getattr(env.action_space, "start", 0))
    import numpy

    return numpy.asarray(action, dtype=env.action_space.dtype).reshape(env.action_space.shape)


try:
    import gymnasium
except ImportError as error:
    fail("missing", error)
    sys.exit()
try:
    env = gymnasium.make(sys.argv[1], disable_env_checker=True, **json.loads(sys.argv[2]))
except gymnasium.error.UnregisteredEnv as error:
    fail("unknown", error)
    sys.exit()
except Exception as error:
    fail("make", error)
    sys.exit()
discrete = type(env.observation_space).__name__ == "Discrete"
start = int(getattr(env.observation_space, "start", 0))
answer(observation_space=describe(env.observation_space), action_space=describe(env.action_space))

for line in sys.stdin:
    request = json.loads(line)
    try:
        if "reset" in request:
            observation, _ = env.reset(seed=request["reset"])
            answer(observation=show(observation))
        else:
            observation, reward, terminated, truncated, _ = env.step(decode(request["step"]))
            answer(
                observation=show(observation),
                reward=flat(reward)[0],
                terminated=bool(terminated),
                truncated=bool(truncated),
            )
    except Exception as error:
        fail("run", error)
