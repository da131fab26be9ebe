//! What Gymnasium knows of its environments, as Minari keeps it in `env_spec` so that `recover_environment` makes them
//! again. Copied from the registry of Gymnasium 1.4; `bench/minari_round_trip.py` compares.

use serde_json::json;

/// (name, place in `gymnasium.envs`, steps after which an episode is cut, mean return that counts as solved).
const SPECS: &[(&str, &str, usize, Option<f64>)] = &[
    ("CartPole-v1", "classic_control.cartpole:CartPoleEnv", 500, Some(475.0)),
    ("Pendulum-v1", "classic_control.pendulum:PendulumEnv", 200, None),
    ("Acrobot-v1", "classic_control.acrobot:AcrobotEnv", 500, Some(-100.0)),
    ("MountainCar-v0", "classic_control.mountain_car:MountainCarEnv", 200, Some(-110.0)),
    (
        "MountainCarContinuous-v0",
        "classic_control.continuous_mountain_car:Continuous_MountainCarEnv",
        999,
        Some(90.0),
    ),
    ("Ant-v5", "mujoco.ant_v5:AntEnv", 1000, Some(6000.0)),
    ("HalfCheetah-v5", "mujoco.half_cheetah_v5:HalfCheetahEnv", 1000, Some(4800.0)),
    ("Hopper-v5", "mujoco.hopper_v5:HopperEnv", 1000, Some(3800.0)),
    ("Humanoid-v5", "mujoco.humanoid_v5:HumanoidEnv", 1000, None),
    ("HumanoidStandup-v5", "mujoco.humanoidstandup_v5:HumanoidStandupEnv", 1000, None),
    (
        "InvertedDoublePendulum-v5",
        "mujoco.inverted_double_pendulum_v5:InvertedDoublePendulumEnv",
        1000,
        Some(9100.0),
    ),
    ("InvertedPendulum-v5", "mujoco.inverted_pendulum_v5:InvertedPendulumEnv", 1000, Some(950.0)),
    ("Pusher-v5", "mujoco.pusher_v5:PusherEnv", 100, Some(0.0)),
    ("Reacher-v5", "mujoco.reacher_v5:ReacherEnv", 50, Some(-3.75)),
    ("Swimmer-v5", "mujoco.swimmer_v5:SwimmerEnv", 1000, Some(360.0)),
    ("Walker2d-v5", "mujoco.walker2d_v5:Walker2dEnv", 1000, None),
];

/// The text of the `EnvSpec` of one of Gymnasium's environments.
pub(super) fn of(id: &str) -> Option<String> {
    let &(id, entry_point, limit, threshold) = SPECS.iter().find(|spec| spec.0 == id)?;
    let entry_point = format!("gymnasium.envs.{entry_point}");
    let mut spec = json!({
        "id": id,
        "entry_point": entry_point,
        "reward_threshold": threshold,
        "nondeterministic": false,
        "max_episode_steps": limit,
        "order_enforce": true,
        "disable_env_checker": false,
        "kwargs": {},
        "additional_wrappers": [],
        "vector_entry_point": null,
    });
    if id == "CartPole-v1" {
        spec["vector_entry_point"] = json!(entry_point.replace("Env", "VectorEnv"));
    }
    Some(spec.to_string())
}
