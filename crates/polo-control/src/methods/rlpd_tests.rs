//! Which critics the target asks, what steps when, and that logged data helps from the first step on.

use off_policy::{Learner as _, Prior, Trainer};
use polo_nn::host;
use polo_sim::{
    classic::pendulum_offline::{Behaviour, ID},
    make,
};

use super::*;
use crate::{
    claims::pendulum::{self, GAMMA, RATE},
    data::Prepared,
    methods::trajectory_weighting::Sampling,
    network::Network,
};

#[test]
fn subsets_are_drawn_evenly_and_without_putting_back() {
    let mut counts = [0; 10];
    for update in 0..2000 {
        let drawn = subset(2, 10, &Seeds::new(1), update);
        assert!(drawn.len() == 2 && drawn[0] != drawn[1]);
        drawn.into_iter().for_each(|member| counts[member] += 1);
    }
    assert!(counts.iter().all(|count| (320..=480).contains(count)), "{counts:?}");
    let mut all = subset(4, 4, &Seeds::new(1), 0);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
}

const ROWS: usize = 6;

fn batch() -> Batch {
    let numbers = |count: usize, name: &str| Seeds::new(5).normal(count, name, 0);
    Batch {
        observations: numbers(2 * ROWS, "o"),
        actions: numbers(ROWS, "a").into_iter().map(f32::tanh).collect(),
        rewards: numbers(ROWS, "r"),
        next_observations: numbers(2 * ROWS, "n"),
        terminated: vec![0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        ..Batch::default()
    }
}

fn learner(settings: &Rlpd) -> RlpdLearner {
    settings.own(&Space::symmetric(&[1.0; 2]), &Space::symmetric(&[1.0]), &Seeds::new(1)).unwrap()
}

fn small() -> Rlpd {
    Rlpd { critics: 5, hidden: vec![8], updates: 3, ..Rlpd::default() }
}

#[test]
fn the_target_is_the_least_of_the_subset_and_the_loss_a_mean() {
    let (batch, noise) = (batch(), Seeds::new(9).normal(ROWS, "noise", 0));
    for entropy_backup in [true, false] {
        let mut learner = learner(&Rlpd { entropy_backup, alpha: Some(0.3), ..small() });
        let soft = &learner.soft;
        let next = soft.draw(&batch.next_observations, &noise);
        // Targets begin as the critics.
        let values = soft.critic.evaluate(&soft.pairs(&batch.next_observations, &next.actions));
        let now = soft.critic.evaluate(&soft.pairs(&batch.observations, &batch.actions));
        let members = [3, 1];
        let aims: Vec<f32> = (0..ROWS)
            .map(|row| {
                let least = values[3 * ROWS + row].min(values[ROWS + row]);
                let bonus = if entropy_backup { -0.3 * next.logps[row] } else { 0.0 };
                batch.rewards[row] + 0.99 * (1.0 - batch.terminated[row]) * (least + bonus)
            })
            .collect();
        let squares = now.iter().enumerate().map(|(place, q)| (q - aims[place % ROWS]).powi(2));
        let expected = f64::from(squares.sum::<f32>()) / (5 * ROWS) as f64;
        let found = learner.learn_critics(&batch, &noise, &members).get("losses/qf_loss").unwrap();
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
    }
}

fn numbers(network: &Network) -> Vec<f32> {
    network.parameters.iter().flat_map(|parameter| host::numbers(&parameter.value)).collect()
}

#[test]
fn critics_step_at_every_update_and_the_policy_at_the_last() {
    let mut learner = learner(&small());
    assert_eq!(Rlpd::default().source(), Source::Both);
    let schedule = learner.schedule();
    assert_eq!((schedule.every, schedule.updates), (1, 3));
    for update in 0..6 {
        let before = (numbers(&learner.soft.actor), numbers(&learner.soft.critic), learner.soft.alpha());
        learner.update(&batch(), update, &Seeds::new(0));
        let last = update % 3 == 2;
        assert_eq!(numbers(&learner.soft.actor) != before.0, last, "{update}");
        assert_eq!(learner.soft.alpha() != before.2, last, "{update}");
        assert_ne!(numbers(&learner.soft.critic), before.1);
    }
    // Normalised hidden layers have a scale and a shift.
    assert!(learner.soft.critic.parameters.iter().any(|parameter| parameter.name.contains("norm")));
    assert!(Rlpd { subset: 6, ..small() }.check().unwrap_err().message().contains("6"));
}

#[test]
fn data_helps_from_the_first_step_on() {
    let settings = pendulum::settings(Sampling::Uniform);
    let method = Rlpd {
        critics: 4,
        updates: 2,
        alpha: Some(0.01),
        tau: 0.02,
        gamma: GAMMA,
        learning_rate: 2.0 * RATE,
        batch: 64,
        random_steps: 200,
        hidden: vec![32, 32],
        ..Rlpd::default()
    };
    let steps = 1400;
    let data = pendulum::mixture(&[(Behaviour::Medium, 40)], 1).unwrap();
    let (observations, actions) = (data.about.observations.clone(), data.about.actions.clone());
    let data = Prepared::new(data, &settings, method.wishes()).unwrap();
    let prior = Prior { data, steps: 0, share: 0.5 };
    let Learner::OffPolicy(learner) = method.learner(&observations, &actions, &Seeds::new(0)).unwrap() else {
        unreachable!()
    };
    let mut trainer = Trainer::new(learner, Some(make(ID).unwrap()), Some(prior), 0, steps).unwrap();
    while trainer.done() < steps {
        trainer.step().unwrap();
    }
    let score = pendulum::score(&trainer.policy(ID), 20).unwrap();
    assert!(score > 90.0, "{score}");
}
