use super::*;
use crate::methods::td3_bc::Td3Bc;

fn spaces() -> (Space, Space) {
    (Space::symmetric(&[1.0; 2]), Space::Box { low: vec![-1.0, 0.0], high: vec![1.0, 4.0] })
}

fn batch(rows: usize) -> Batch {
    let numbers = |count: usize, name: &str| Seeds::new(5).normal(count, name, 0);
    Batch {
        observations: numbers(2 * rows, "o"),
        actions: numbers(2 * rows, "a").chunks(2).flat_map(|a| [a[0].tanh(), 2.0 + a[1].tanh()]).collect(),
        rewards: numbers(rows, "r"),
        next_observations: numbers(2 * rows, "n"),
        terminated: vec![0.0; rows],
        ..Batch::default()
    }
}

fn learner(settings: A2pr) -> A2prLearner {
    let (observations, actions) = spaces();
    let settings = A2pr { hidden: vec![16], vae_hidden: vec![16], ..settings };
    let networks = Deterministic::new(&observations, &actions, &[16], &Seeds::new(1)).unwrap();
    let value = Network::new(shape(&[16], 2, 1, 1), "value", &Seeds::new(2));
    let vae = Vae::new(&[16], 2, 2, 4, &Seeds::new(3));
    A2prLearner { settings, networks, value, vae }
}

#[test]
fn choices_of_the_card() {
    let method = A2pr::default();
    let choose = |of_data, of_vae| {
        let Choice { made, on } = method.choose(of_data, of_vae);
        (made, on)
    };
    // Q = 0 and V = -1: a tie goes to the VAE's action.
    assert_eq!(choose(1.0, 1.0), (true, true));
    // V above all values: nothing is imitated.
    assert_eq!(choose(-2.0, -1.0), (true, false));
    assert_eq!(choose(-1.0, -2.0), (false, false));
    // One good action is enough, and both being good is no more than that.
    assert_eq!(choose(0.5, -1.0), (false, true));
    assert_eq!(choose(-1.0, 0.0), (true, true));
    assert_eq!(choose(0.0, -1.0), (false, false));
    for of_data in [-1.5f32, -0.1, 0.3] {
        for of_vae in [-2.0f32, 0.0, 0.2] {
            let chosen = if method.choose(of_data, of_vae).made { of_vae } else { of_data };
            assert!(chosen >= of_data);
        }
    }
}

/// With the data's action everywhere and weight 1, A2PR is TD3+BC, bit for bit.
#[test]
fn without_its_parts_it_is_td3_bc() {
    let (observations, actions) = spaces();
    let off = A2pr {
        candidates: false,
        masked: false,
        imitation_weight: 1.0,
        learning_rate: 1e-3,
        hidden: vec![16],
        vae_hidden: vec![16],
        ..A2pr::default()
    };
    let plain = Td3Bc { learning_rate: 1e-3, hidden: vec![16], ..Td3Bc::default() };
    let seeds = Seeds::new(7);
    let build = |method: &dyn Control| match method.learner(&observations, &actions, &seeds).unwrap() {
        Learner::OffPolicy(learner) => learner,
        Learner::OnPolicy(_) => unreachable!(),
    };
    let (mut ours, mut theirs) = (build(&off), build(&plain));
    for update in 0..6 {
        let found = ours.update(&batch(8), update, &seeds);
        let wanted = theirs.update(&batch(8), update, &seeds);
        assert_eq!(found.get("losses/actor_loss"), wanted.get("losses/actor_loss"));
    }
    let seen = [0.3, -0.4];
    assert_eq!(ours.policy("").network.evaluate(&seen), theirs.policy("").network.evaluate(&seen));
}

#[test]
fn the_vae_of_the_card() {
    let vae = Vae::new(&[16], 2, 2, 4, &Seeds::new(3));
    let (divergence, slopes) = vae.divergence(&[0.0; 16]);
    assert_eq!((divergence, slopes), (0.0, vec![0.0; 16]));
    let batch = batch(5);
    let made = vae.reconstruct(&batch.observations, &batch.actions, vec![0.1; 20]);
    let (loss, slopes) = imitation(&made.actions, &batch.actions, &[1.0; 2], &[0.0; 5]);
    assert_eq!((loss, slopes), (0.0, vec![0.0; 10]));
}

/// Slopes of the KL term and of what goes through encoder and decoder, against differences.
#[test]
fn slopes_of_the_vae() {
    let vae = Vae::new(&[16], 2, 2, 4, &Seeds::new(3));
    let codes = Seeds::new(4).normal(16, "codes", 0);
    let (_, slopes) = vae.divergence(&codes);
    for place in 0..16 {
        let at = |step: f32| {
            let mut moved = codes.clone();
            moved[place] += step;
            vae.divergence(&moved).0
        };
        let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
        assert!((slopes[place] - difference).abs() < 2e-3, "{} {difference}", slopes[place]);
    }
    let Batch { observations, actions, .. } = batch(3);
    let weights = [0.7f32, -0.2, 0.4, 1.0, -0.6, 0.3];
    let loss = |actions: &[f32]| {
        let made = vae.reconstruct(&observations, actions, vec![0.3; 12]);
        made.actions.iter().zip(&weights).map(|(a, w)| a * w).sum::<f32>()
    };
    let slopes = vae.slope(&vae.reconstruct(&observations, &actions, vec![0.3; 12]), &weights);
    for place in 0..6 {
        let at = |step: f32| {
            let mut moved = actions.clone();
            moved[place] += step;
            loss(&moved)
        };
        let difference = (at(5e-3) - at(-5e-3)) / 1e-2;
        assert!((slopes[place] - difference).abs() < 3e-3, "{} {difference}", slopes[place]);
    }
}

/// Where V is above every value, the policy climbs alone: the imitation is 0.
#[test]
fn nothing_good_nothing_imitated() {
    let mut learner = learner(A2pr::default());
    let batch = batch(8);
    let values = vec![1e6; 8];
    let of_data = vec![-1e6; 8];
    let found = learner.learn_policy(&batch, &of_data, &values, vec![0.0; 32]);
    assert_eq!(found.get("losses/imitation"), Some(0.0));
    assert_eq!(found.get("policy/imitated_none"), Some(1.0));
    let low = vec![-1e6; 8];
    let found = learner.learn_policy(&batch, &[1e6; 8], &low, vec![0.0; 32]);
    assert_eq!(found.get("policy/imitated_none"), Some(0.0));
    assert!(found.get("policy/advantage_gain").unwrap() >= 0.0);
}

/// The narrow bandit of the card, shortened: most data is bad, a part of it good; selective imitation finds the good.
#[test]
fn the_good_part_of_narrow_data_is_found() {
    let reward = |s: f32, a: &[f32]| {
        let best = [(3.0 * s).sin() / 1.5, (3.0 * s).cos() / 1.5];
        1.0 - (a[0] - best[0]).powi(2) - (a[1] - best[1]).powi(2)
    };
    let data = crate::claims::a2pr::narrow(2000, 11);
    let (observations, actions) = (Space::symmetric(&[1.0]), Space::symmetric(&[1.0; 2]));
    let method = A2pr {
        alpha: 0.5,
        imitation_weight: 1.0,
        policy_every: 1,
        learning_rate: 1e-3,
        hidden: vec![32, 32],
        vae_hidden: vec![32, 32],
        batch: 128,
        ..A2pr::default()
    };
    let Learner::OffPolicy(mut learner) = method.learner(&observations, &actions, &Seeds::new(1)).unwrap()
    else {
        unreachable!()
    };
    let score = |policy: &Policy| {
        let states = (0..50).map(|i| i as f32 / 25.0 - 0.98);
        states.map(|s| reward(s, policy.act(&[s]).values().unwrap())).sum::<f32>() / 50.0
    };
    assert!(score(&learner.policy("")) < 0.6);
    let seeds = Seeds::new(2);
    for update in 0..2000 {
        let mut rng = seeds.rng("batch", update);
        let places: Vec<usize> =
            (0..128).map(|_| polo_run::seed::below(&mut rng, data.len() as u64) as usize).collect();
        learner.update(&data.transitions().at(&places), update, &seeds);
    }
    let found = score(&learner.policy(""));
    assert!(found > 0.9, "{found}");
}
