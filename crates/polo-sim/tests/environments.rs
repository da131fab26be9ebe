//! What holds for every environment that polo makes: exact restoring, and wrong use that is told, not taken.
#![allow(clippy::unwrap_used, missing_docs)]

use polo_sim::{Action, Environment, NumpyRandom, Step, environment::ENVIRONMENTS, make};
use serde_json::{Value, json};

#[path = "../examples/own_environment.rs"]
mod own_environment;

#[test]
fn the_example_of_an_own_environment_runs() {
    own_environment::main().unwrap();
}

type Episode = (Vec<f32>, Vec<Step>);

/// Random episodes from here on, `steps` long in all, the first one going on where `going` says so.
fn follow(environment: &mut dyn Environment, going: bool, steps: usize) -> Vec<Episode> {
    let mut random = NumpyRandom::new(17);
    let mut episodes = Vec::new();
    let mut over = !going;
    let mut now = (Vec::new(), Vec::new());
    for _ in 0..steps {
        if over {
            episodes.push(std::mem::take(&mut now));
            now.0 = environment.reset(None).unwrap();
        }
        let step = environment.step(&environment.action_space().sample(&mut random)).unwrap();
        over = step.done();
        now.1.push(step);
    }
    episodes.push(now);
    episodes
}

/// Equal to the last bit; of two zeros, to the sign.
fn same(a: &[Episode], b: &[Episode]) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

#[test]
fn a_restored_environment_goes_on_exactly() {
    for id in ENVIRONMENTS.iter().map(|listing| listing.id) {
        for taken in [0, 1, 5, 60] {
            let mut environment = make(id).unwrap();
            environment.reset(Some(3)).unwrap();
            // Not only in the first episode, so that the generator matters.
            let mut going = true;
            let mut random = NumpyRandom::new(4);
            for _ in 0..taken {
                if !going {
                    environment.reset(None).unwrap();
                }
                let action = environment.action_space().sample(&mut random);
                going = !environment.step(&action).unwrap().done();
            }
            let saved: Value = serde_json::from_str(&environment.save().to_string()).unwrap();
            let mut again = make(id).unwrap();
            again.restore(&saved).unwrap();
            assert_eq!(again.save(), environment.save());
            let [a, b] = [&mut environment, &mut again].map(|run| follow(run, going, 700));
            assert!(same(&a, &b), "{id} differs after {taken} steps");
        }
    }
}

#[test]
fn a_seed_decides_everything_and_none_goes_on() {
    for id in ENVIRONMENTS.iter().map(|listing| listing.id) {
        let mut environment = make(id).unwrap();
        let mut first = |seed| environment.reset(seed).unwrap();
        let unseeded = first(None);
        let seeded = [first(Some(0)), first(None), first(Some(0)), first(Some(1))];
        assert_eq!(unseeded, seeded[0], "{id}: never seeded is seeded with 0");
        assert!(seeded[0] == seeded[2] && seeded[0] != seeded[1] && seeded[0] != seeded[3], "{id}");
    }
}

#[test]
fn what_is_shown_fits_the_space_and_episodes_end_in_time() {
    for listing in ENVIRONMENTS {
        let mut environment = make(listing.id).unwrap();
        let mut random = NumpyRandom::new(5);
        let mut seen = environment.reset(Some(6)).unwrap();
        let mut elapsed = 0;
        loop {
            assert!(environment.observation_space().contains(&Action::Continuous(seen)), "{}", listing.id);
            let step = environment.step(&environment.action_space().sample(&mut random)).unwrap();
            elapsed += 1;
            assert_eq!(step.truncated, elapsed == listing.time_limit);
            seen = step.observation.clone();
            if step.done() {
                break;
            }
        }
    }
}

#[test]
fn wrong_use_is_an_error_with_a_hint_and_changes_nothing() {
    for id in ENVIRONMENTS.iter().map(|listing| listing.id) {
        let mut environment = make(id).unwrap();
        let good = environment.action_space().sample(&mut NumpyRandom::new(0));
        let refuses = |environment: &mut dyn Environment, action: &Action, words: &str| {
            let before = environment.save();
            let problem = environment.step(action).unwrap_err();
            assert!(problem.message().contains(words) && problem.hint_text().is_some(), "{id}: {problem}");
            assert_eq!(environment.save(), before);
        };
        refuses(&mut environment, &good, "never reset");
        environment.reset(Some(0)).unwrap();
        match &good {
            Action::Discrete(_) => {
                refuses(&mut environment, &Action::Discrete(9), "is not one of");
                refuses(&mut environment, &Action::Continuous(vec![0.0]), "a continuous action");
            }
            Action::Continuous(values) => {
                refuses(&mut environment, &Action::Continuous(vec![0.0; 9]), "an action of 9 numbers");
                refuses(&mut environment, &Action::Continuous(vec![f32::NAN; values.len()]), "is NaN");
                refuses(&mut environment, &Action::Discrete(0), "a discrete action");
            }
        }
        while !environment.step(&good).unwrap().done() {}
        refuses(&mut environment, &good, "there is no episode to step");
        let before = environment.save();
        for bad in [Value::Null, json!({}), json!({"elapsed": 1}), json!({"elapsed": 1, "environment": {}})] {
            let problem = environment.restore(&bad).unwrap_err();
            assert!(problem.message().starts_with("the saved state"), "{id}: {problem}");
        }
        assert_eq!(environment.save(), before);
    }
}

#[test]
fn a_state_of_another_environment_is_refused() {
    let saved = make("Pendulum-v1").unwrap().save();
    // Never reset, both hold no more than a generator.
    make("CartPole-v1").unwrap().restore(&saved).unwrap();
    let mut pendulum = make("Pendulum-v1").unwrap();
    pendulum.reset(None).unwrap();
    assert!(make("CartPole-v1").unwrap().restore(&pendulum.save()).is_err());
}

#[cfg(not(feature = "mujoco"))]
#[test]
fn robots_are_refused_without_mujoco() {
    let problem = make("Hopper-v5").err().unwrap();
    assert_eq!(problem.message(), "`Hopper-v5` is moved by MuJoCo, without which polo was built");
    assert!(problem.hint_text().unwrap().starts_with("build with `--features mujoco`"));
}

#[test]
fn unknown_names_are_met_with_the_nearest() {
    for (id, hint) in [
        ("CartPole-v0", "did you mean `CartPole-v1`?"),
        ("cartpole", "did you mean `CartPole-v1`?"),
        ("pointmaze", "did you mean `polo/PointMaze-v0`?"),
        ("MountainCarContinous-v0", "did you mean `MountainCarContinuous-v0`?"),
        ("zzz", "`gym:zzz` asks Gymnasium in Python for it"),
    ] {
        let problem = make(id).err().unwrap();
        assert_eq!(problem.message(), format!("there is no environment `{id}`"));
        assert!(problem.hint_text().unwrap().starts_with(hint), "{:?}", problem.hint_text());
    }
}
